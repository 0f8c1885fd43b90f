"""Ledgers and databases to test with."""
