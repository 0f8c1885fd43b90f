"""Vendors to test: in this process, in one of their own, and parts of them."""
