"""A run as one typed, frozen configuration; command line, YAML, `config.json` and the Python API are views of it."""
