"""Databases for the ledger's tests, and a shop in each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from support.ledger.databases import (
    database_url,
    empty_postgres_url,
    engine,
    migrated_postgres,
    migrated_sqlite,
    postgres_server,
    postgres_url,
    sqlite_url,
)
from support.ledger.ledger_shop import Shop, open_shop

__all__ = [
    "database_url",
    "empty_postgres_url",
    "engine",
    "migrated_postgres",
    "migrated_sqlite",
    "postgres_server",
    "postgres_url",
    "sqlite_url",
]


@pytest.fixture
def shop(engine: Engine) -> Shop:
    """An account with a budget of 10 queries, a key, and images at 100 micro-EUR."""
    return open_shop(engine)


@pytest.fixture
def make_shop(engine: Engine) -> Callable[..., Shop]:
    """`open_shop` on this test's database."""
    return lambda **options: open_shop(engine, **options)
