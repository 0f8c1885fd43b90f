"""The proofs of the bill: short in `make test`, at full length with `--full` (`make prove-billing`).

`benchmarks/billing_proofs.py` runs them all at full length and makes a result file of the figures.
"""

from __future__ import annotations

from support.ledger.databases import (
    database_url,
    engine,
    migrated_postgres,
    migrated_sqlite,
    postgres_server,
    postgres_url,
    sqlite_url,
)
from support.proofs.proof_figures import figures, full, prove, scale

__all__ = [
    "database_url",
    "engine",
    "figures",
    "full",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres_server",
    "postgres_url",
    "prove",
    "scale",
    "sqlite_url",
]
