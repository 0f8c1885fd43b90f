"""Fuzzing: inputs of each class made by number, tried, and kept when they find something."""
