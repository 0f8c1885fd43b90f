"""The real server in a process that can kill itself with SIGKILL at a named point of a sale.

`python -c "from support.vendor import crashing_vendor; crashing_vendor.hatch(...)"` imports the vendor once and forks a
server for every line that it reads, so that a restart costs no import. The settings come from the environment, as
everywhere.

The points are found as the sale passes them, whatever the statements of a charge are:

    before/after SQL         each statement and the commit of the ledger's writer, by verb and table
    amid SQL                 between the rows of an `executemany` or a `COPY`
    before/after sign        of a receipt
    before/after send        of the head and the body of the answer to a sale
"""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import psycopg
from fastapi import FastAPI
from sqlalchemy import Engine, event
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vl2v_vendor.cli import server
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.settings import load_settings

SALES = "/v1/embeddings/"
WRITER_THREAD = "ledger-writer"

_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE|COPY)\s+(\w+)", re.IGNORECASE)


class KillSwitch:
    """Notes the points that are passed, and kills the process the `hits`-th time that it passes `point`."""

    def __init__(self, point: str, hits: int, log: int) -> None:
        self._point = point
        self._hits_left = hits
        self._log = log
        self._seen: set[str] = set()

    @contextmanager
    def around(self, what: str) -> Iterator[None]:
        self.pass_point(f"before {what}")
        yield
        self.pass_point(f"after {what}")

    def between(self, what: str, rows: Iterable[Any]) -> Iterator[Any]:
        for index, row in enumerate(rows):
            if index:
                self.pass_point(f"amid {what}")
            yield row

    def pass_point(self, point: str) -> None:
        if point not in self._seen:
            self._seen.add(point)
            os.write(self._log, f"seen {point}\n".encode())
        if point == self._point:
            self._hits_left -= 1
            if self._hits_left == 0:
                os.write(self._log, f"killed {point}\n".encode())
                os.kill(os.getpid(), signal.SIGKILL)


def hatch(log_path: str, life_line: int) -> None:
    """Fork a server per line `{"point": ..., "hits": ...}` of stdin; print its pid, then its exit code.

    Args:
        log_path: where the servers note the points that they pass, and the one that they die at.
        life_line: descriptor of a pipe; a server whose harness has let go of the other end dies.
    """
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            threading.Thread(target=_die_at_end_of, args=(life_line,), daemon=True).start()
            serve(KillSwitch(**json.loads(line), log=log))
            os._exit(0)
        _tell(pid)
        _, status = os.waitpid(pid, 0)
        _tell(os.waitstatus_to_exitcode(status))


def serve(switch: KillSwitch) -> None:
    """Set the switch up around the charge, the signature and the answer, and serve."""
    _Watched.switch = switch
    event.listen(Engine, "do_connect", _connect)
    _watch_signatures(switch)
    _watch_answers(switch)
    server.run_server(load_settings())


def name_statement(statement: str) -> str:
    """`INSERT ledger`, `BEGIN IMMEDIATE`: the verb and the first table, or the first two words."""
    table = _TABLE.search(statement)
    words = statement.split(None, 2)
    return f"{words[0].upper()} {table[1]}" if table else " ".join(words[:2])


class _Watched:
    """Mixed into a driver's connection and cursor: the switch of this process, and what belongs to a charge."""

    switch: ClassVar[KillSwitch]

    def is_charge(self, statement: str) -> bool:
        # The writer may have to open or to try its connection first, which is no part of a sale.
        opening = ("PRAGMA", ";", "SELECT pg_backend_pid")
        return threading.current_thread().name == WRITER_THREAD and not statement.startswith(opening)


class _WatchedCursor(_Watched):
    """The charge's statements go to the driver's cursor directly."""

    def execute(self, statement: str, *rest: Any, **options: Any) -> Any:
        if not self.is_charge(statement):
            return super().execute(statement, *rest, **options)  # type: ignore[misc]
        with self.switch.around(name_statement(statement)):
            return super().execute(statement, *rest, **options)  # type: ignore[misc]

    def executemany(self, statement: str, rows: Iterable[Any], **options: Any) -> Any:
        if not self.is_charge(statement):
            return super().executemany(statement, rows, **options)  # type: ignore[misc]
        name = name_statement(statement)
        with self.switch.around(name):
            return super().executemany(statement, self.switch.between(name, rows), **options)  # type: ignore[misc]


class _WatchedConnection(_Watched):
    def commit(self) -> None:
        if not self.is_charge("COMMIT"):
            super().commit()  # type: ignore[misc]
            return
        with self.switch.around("COMMIT"):
            super().commit()  # type: ignore[misc]


class _SqliteCursor(_WatchedCursor, sqlite3.Cursor):
    pass


class _SqliteConnection(_WatchedConnection, sqlite3.Connection):
    def cursor(self, factory: Any = _SqliteCursor) -> Any:
        return super().cursor(factory)


class _PostgresCursor(_WatchedCursor, psycopg.Cursor[Any]):  # type: ignore[misc]
    @contextmanager
    def copy(self, statement: Any, *rest: Any, **options: Any) -> Iterator[Any]:
        name = name_statement(statement)
        with self.switch.around(name), super().copy(statement, *rest, **options) as copy:
            yield copy
            self.switch.pass_point(f"amid {name}")


class _PostgresConnection(_WatchedConnection, psycopg.Connection[Any]):
    pass


def _connect(dialect: Any, _record: Any, words: Any, options: dict[str, Any]) -> Any:
    if dialect.name == "sqlite":
        return sqlite3.connect(*words, **options, factory=_SqliteConnection)
    return _PostgresConnection.connect(*words, **options, cursor_factory=_PostgresCursor)


def _watch_signatures(switch: KillSwitch) -> None:
    sign = SecretSigner.sign_receipt

    def watched(self: SecretSigner, *entry: Any) -> str:
        with switch.around("sign"):
            return sign(self, *entry)

    setattr(SecretSigner, "sign_receipt", watched)  # noqa: B010, mypy refuses a method


def _watch_answers(switch: KillSwitch) -> None:
    create_app = vars(server)["create_app"]

    def create_watched(*words: Any, **options: Any) -> ASGIApp:
        app: FastAPI = create_app(*words, **options)

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def send_watched(message: Message) -> None:
                with switch.around(f"send {message['type']}"):
                    await send(message)

            is_sale = scope["type"] == "http" and scope["path"].startswith(SALES)
            await app(scope, receive, send_watched if is_sale else send)

        return watched

    setattr(server, "create_app", create_watched)  # noqa: B010, mypy refuses another type


def _tell(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def _die_at_end_of(life_line: int) -> None:
    os.read(life_line, 1)
    os.kill(os.getpid(), signal.SIGKILL)
