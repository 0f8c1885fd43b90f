"""Everything that a vendor has stored or logged, as bytes, to be searched for what it must not keep."""

from __future__ import annotations

import base64
import hashlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from sqlalchemy import Engine, inspect, text


class LogCollector(logging.Handler):
    """Keeps every record of every logger, formatted, while it is entered."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{self.format(record)} {record.__dict__.get('fields', '')}")

    def __enter__(self) -> LogCollector:
        root = logging.getLogger()
        self._level = root.level
        root.setLevel(logging.DEBUG)
        root.addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        root = logging.getLogger()
        root.removeHandler(self)
        root.setLevel(self._level)


def stored_bytes(engine: Engine) -> bytes:
    """Every value of every column of every table, and on SQLite the raw files too."""
    values: list[bytes] = []
    with engine.connect() as connection:
        for table in inspect(connection).get_table_names():
            for row in connection.execute(text(f'SELECT * FROM "{table}"')):
                values += [_as_bytes(value) for value in row if value is not None]
    if engine.dialect.name == "sqlite":
        main = Path(str(engine.url.database))
        values += [file.read_bytes() for file in (main, main.with_name(f"{main.name}-wal")) if file.exists()]
    return b"\0".join(values)


def traces_of(content: bytes) -> Iterator[bytes]:
    """What would give an input away: its bytes, their base64, and their unkeyed hash in any form."""
    digest = hashlib.sha256(content)
    yield content
    yield base64.b64encode(content)
    yield from forms_of(digest.hexdigest())


def forms_of(hex_digest: str) -> Iterator[bytes]:
    """A hash as text or as bytes."""
    raw = bytes.fromhex(hex_digest)
    yield from (raw, hex_digest.encode(), hex_digest.upper().encode(), base64.b64encode(raw))


def check_i12_no_input_stored(engine: Engine, log: LogCollector, traces: Iterable[bytes]) -> None:
    stored = stored_bytes(engine)
    logged = "\n".join(log.lines).encode("utf-8", "backslashreplace")
    for trace in traces:
        # Not `in`: pytest would compare the whole of it to explain a failure.
        assert stored.find(trace) < 0, f"stored: {trace[:64]!r}"
        assert logged.find(trace) < 0, f"logged: {trace[:64]!r}"


def _as_bytes(value: object) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
