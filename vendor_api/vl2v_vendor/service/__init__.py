"""The use cases, over ports alone."""
