"""The use cases, told with ports only."""
