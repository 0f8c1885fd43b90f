"""What was bought, kept for ever: vectors, receipts, and every purchase's state, in one SQLite file."""
