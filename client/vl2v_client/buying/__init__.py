"""Buying what a plan misses, batch by batch, each item paid once."""
