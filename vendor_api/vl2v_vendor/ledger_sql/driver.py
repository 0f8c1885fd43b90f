"""The database driver's own connection, below SQLAlchemy: for the charge, whose statements are many and small."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, cast

from sqlalchemy import BigInteger, Connection, Integer, LargeBinary, String, Table, Text, insert
from sqlalchemy.dialects import sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeEngine

from vl2v_vendor.ledger_sql.database import is_postgresql


class Cursor(Protocol):
    """What is used of a driver's cursor (PEP 249)."""

    @property
    def rowcount(self) -> int:
        """Rows that the statement changed."""

    def execute(self, statement: str, parameters: Mapping[str, Any] = ..., /) -> Any:
        """Run a statement."""

    def executemany(self, statement: str, parameters: Sequence[Mapping[str, Any]], /) -> Any:
        """Run a statement once for each set of parameters."""

    def fetchone(self) -> Any:
        """The next row or None."""

    def fetchall(self) -> Sequence[Any]:
        """All rows that are left."""


class Driver:
    """Runs compiled statements in the transaction of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection.connection
        self._is_postgresql = is_postgresql(connection)

    def execute(self, statement: str, parameters: Mapping[str, Any] | None = None) -> Cursor:
        """Run a statement; its cursor holds what came of it."""
        cursor = cast("Cursor", self._connection.cursor())
        cursor.execute(statement, parameters or {})
        return cursor

    def executemany(self, statement: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Run a statement for each row."""
        cast("Cursor", self._connection.cursor()).executemany(statement, rows)

    def pipeline(self) -> AbstractContextManager[Any]:
        """Send the statements of the block at once, where each would cost a round trip; fetch when it has ended.

        They run one after the other all the same, each seeing what the ones before have locked and changed. What goes
        wrong with one is raised by the block's end at the latest.
        """
        if not self._is_postgresql:
            return nullcontext()
        return cast("AbstractContextManager[Any]", cast("Any", self._connection.driver_connection).pipeline())

    def disable_prepared_statements(self) -> bool:
        """Use no prepared statement on this connection any more; returns whether it must be replaced to use them again.

        To be called after a statement failed. psycopg counts every statement of a failed pipeline as prepared,
        also those that the server skipped, and would fail with "prepared statement does not exist" for ever.
        """
        if self._is_postgresql:
            cast("Any", self._connection.driver_connection).prepare_threshold = None
        return self._is_postgresql


@dataclass(frozen=True, slots=True)
class RowInsert:
    """Inserting many rows into all columns of a table.

    PostgreSQL takes them as one document, with the bytes of all rows in one string beside it: one statement, whatever
    their number, at a fraction of the cost of an INSERT for each.

    Attributes:
        statement: An INSERT, of one row for SQLite.
        binary: The columns of bytes that are taken from the string; none for SQLite.
        takes_document: Whether the statement takes all rows at once.
    """

    statement: str
    binary: tuple[str, ...]
    takes_document: bool

    @classmethod
    def into(cls, table: Table, dialect: Dialect) -> RowInsert:
        """Compile for one database."""
        if dialect.name != "postgresql":
            return cls(compile_text(insert(table), dialect), (), False)
        types = {column.name: _POSTGRES_TYPES[type(column.type)] for column in table.columns}
        binary = tuple(name for name, kind in types.items() if kind == "bytea")
        values = [f"substring(%(bytes)b FROM {n}_start FOR {n}_length)" if n in binary else n for n in types]
        fields = [f"{n}_start int, {n}_length int" if n in binary else f"{n} {kind}" for n, kind in types.items()]
        statement = (
            f"INSERT INTO {table.name} ({', '.join(types)}) SELECT {', '.join(values)} "
            f"FROM json_to_recordset(%(rows)s::json) AS given({', '.join(fields)})"
        )
        return cls(statement, binary, True)

    def run(self, driver: Driver, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert rows that name every column."""
        if not self.takes_document:
            driver.executemany(self.statement, rows)
            return
        parameters: dict[str, Any] = {}
        if self.binary:
            rows, parameters["bytes"] = self._split_binary(rows)
        parameters["rows"] = json.dumps(rows)
        driver.execute(self.statement, parameters)

    def _split_binary(self, rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], bytes]:
        parts: list[bytes] = []
        start = 1
        apart = []
        for row in rows:
            plain = dict(row)
            for name in self.binary:
                part = plain.pop(name)
                plain |= {f"{name}_start": start, f"{name}_length": len(part)}
                parts.append(part)
                start += len(part)
            apart.append(plain)
        return apart, b"".join(parts)


_POSTGRES_TYPES: dict[type[TypeEngine[Any]], str] = {
    BigInteger: "bigint",
    Integer: "int",
    LargeBinary: "bytea",
    String: "text",
    Text: "text",
}


def compile_text(statement: Any, dialect: Dialect) -> str:
    """The statement's text with named parameters, as the driver takes it."""
    # The driver's usual `?` would tie each statement to the order of its parameters.
    by_name = sqlite.dialect(paramstyle="named") if dialect.name == "sqlite" else dialect
    return str(statement.compile(dialect=by_name))
