"""A PostgreSQL server, which the manifests leave to others."""

from support.ledger.databases import empty_postgres_url, postgres_server

__all__ = ["empty_postgres_url", "postgres_server"]
