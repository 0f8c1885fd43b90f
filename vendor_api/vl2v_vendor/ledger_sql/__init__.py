"""The ledger in SQL: SQLite for one server process, PostgreSQL for any number of them. SQL lives nowhere else."""
