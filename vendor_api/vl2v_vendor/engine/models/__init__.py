"""Models that turn pixels and tokens into unit-norm vectors: loading, checks, warm-up."""
