"""The database driver's own connection, below SQLAlchemy: for the charge, whose statements are many and small.

SQLAlchemy compiles each statement once to plain text with named parameters; its execution layer would take its time
over each call.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    ClauseElement,
    Connection,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    insert,
    make_url,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine.interfaces import DBAPICursor
from sqlalchemy.types import TypeEngine

_POSTGRES_TYPES: dict[type[TypeEngine[Any]], str] = {
    BigInteger: "bigint",
    Integer: "int",
    LargeBinary: "bytea",
    String: "text",
    Text: "text",
}


class Driver:
    """Runs statements in the transaction of a connection."""

    def __init__(self, connection: Connection) -> None:
        self.backend = connection.dialect.name
        self.is_postgresql = self.backend == "postgresql"
        self._connection = connection.connection

    def execute(self, statement: ClauseElement | str, parameters: Mapping[str, Any] | None = None) -> DBAPICursor:
        """Run a statement; its cursor holds what came of it."""
        cursor = self._connection.cursor()
        text = statement if isinstance(statement, str) else compile_text(statement, self.backend)
        cursor.execute(text, cast("Any", parameters or {}))
        return cursor

    def insert(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows that name every column of the table.

        PostgreSQL takes them as one document, with the bytes of all rows in one string beside it: one statement,
        whatever their number, at a fraction of the cost of an INSERT for each.
        """
        statement, binary = _compose_insert(table, self.backend)
        if not self.is_postgresql:
            self._connection.cursor().executemany(statement, cast("Any", rows))
            return
        parameters: dict[str, Any] = {}
        if binary:
            rows, parameters["bytes"] = _split_binary(rows, binary)
        parameters["rows"] = json.dumps(rows)
        self.execute(statement, parameters)

    def pipeline(self) -> AbstractContextManager[Any]:
        """Send the statements of the block at once, where each would cost a round trip; fetch when it has ended.

        They run one after the other all the same, each seeing what the ones before have locked and changed. What goes
        wrong with one is raised by the block's end at the latest.
        """
        if not self.is_postgresql:
            return nullcontext()
        return cast("AbstractContextManager[Any]", cast("Any", self._connection.driver_connection).pipeline())

    def disable_prepared_statements(self) -> bool:
        """Use no prepared statement on this connection any more; returns whether it must be replaced to use them again.

        To be called after a statement failed. psycopg counts every statement of a failed pipeline as prepared,
        also those that the server skipped, and would fail with "prepared statement does not exist" for ever.
        """
        if self.is_postgresql:
            cast("Any", self._connection.driver_connection).prepare_threshold = None
        return self.is_postgresql


@cache
def compile_text(statement: ClauseElement, backend: str) -> str:
    """Compile a statement, which is kept for ever, to the text that the driver takes, with named parameters."""
    # SQLite's usual `?` would tie each statement to the order of its parameters.
    dialect = (
        make_url("postgresql+psycopg://").get_dialect()()
        if backend == "postgresql"
        else sqlite.dialect(paramstyle="named")
    )
    return str(statement.compile(dialect=dialect))


@cache
def _compose_insert(table: Table, backend: str) -> tuple[str, tuple[str, ...]]:
    """Compose SQLite's statement for one row, or PostgreSQL's for all rows, with the names of its columns of bytes."""
    if backend != "postgresql":
        return compile_text(insert(table), backend), ()
    types = {column.name: _POSTGRES_TYPES[type(column.type)] for column in table.columns}
    binary = tuple(name for name, kind in types.items() if kind == "bytea")
    values = [f"substring(%(bytes)b FROM {n}_start FOR {n}_length)" if n in binary else n for n in types]
    fields = [f"{n}_start int, {n}_length int" if n in binary else f"{n} {kind}" for n, kind in types.items()]
    statement = (
        f"INSERT INTO {table.name} ({', '.join(types)}) SELECT {', '.join(values)} "  # nosec # names of our tables
        f"FROM json_to_recordset(%(rows)s::json) AS given({', '.join(fields)})"
    )
    return statement, binary


def _split_binary(rows: Sequence[Mapping[str, Any]], binary: Sequence[str]) -> tuple[list[dict[str, Any]], bytes]:
    """Put the bytes of all rows into one string, and where they are in it into the rows."""
    parts: list[bytes] = []
    start = 1
    apart = []
    for row in rows:
        plain = dict(row)
        for name in binary:
            part = plain.pop(name)
            plain |= {f"{name}_start": start, f"{name}_length": len(part)}
            parts.append(part)
            start += len(part)
        apart.append(plain)
    return apart, b"".join(parts)
