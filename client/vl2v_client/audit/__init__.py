"""Checking the bill: the vendor's whole chain, entry by entry, against this client's own ledger."""
