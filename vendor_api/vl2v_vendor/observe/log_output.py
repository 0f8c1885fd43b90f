"""Log lines on standard error, plain for people or JSON for collectors.

Lines that are written while a request is served carry its id, in both forms.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final, Literal

from vl2v_contract.texts import printable
from vl2v_vendor.observe.request_trace import known_facts

LogFormat = Literal["plain", "json"]

_log = logging.getLogger(__name__)

_PLAIN: Final = "%(asctime)s %(levelname)s %(message)s"


def set_up_logging(level: str, log_format: LogFormat) -> None:
    """Send this process's log, and Python's warnings and the deaths of threads, to standard error.

    A second call replaces the first.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else PlainFormatter(_PLAIN))
    handler.addFilter(add_request_facts)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("vl2v_vendor").setLevel(level.upper())
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # it warns of each malformed request; they are counted
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns with what customers send
    logging.captureWarnings(True)
    threading.excepthook = _log_death


def add_request_facts(record: logging.LogRecord) -> bool:
    """Put what is known about the request in hand before a record's own `fields`; lets every record pass."""
    own = getattr(record, "fields", None)
    record.fields = {**known_facts(), **(own if isinstance(own, dict) else {})}
    return True


class PlainFormatter(logging.Formatter):
    """A line for people, that ends in the request's id."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's first line; what does not print, a line's end among it, is escaped: a path is a stranger's."""
        line = printable(super().formatMessage(record))
        request_id = _fields(record).get("request_id")
        return line if request_id is None or request_id in line else f"{line} {request_id}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line, an exception included; a record's `fields` become members of their own."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of one record."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, tz=UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = getattr(record, "fields", None)
    return fields if isinstance(fields, dict) else {}


def _log_death(death: threading.ExceptHookArgs) -> None:
    """Log what ended a thread, instead of printing it."""
    if death.exc_value is not None and not isinstance(death.exc_value, SystemExit):
        name = death.thread.name if death.thread is not None else "unknown"
        _log.error("thread %s died", name, exc_info=death.exc_value)
