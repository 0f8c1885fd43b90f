"""The use cases, over ports and the rooms below; no framework, no SQL."""
