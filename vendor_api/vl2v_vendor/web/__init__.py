"""The HTTP surface: parse, call one use case, answer with the contract's messages."""
