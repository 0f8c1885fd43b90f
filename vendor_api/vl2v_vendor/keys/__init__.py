"""Secrets of the vendor: signing keys, and the file of the heads that they signed."""
