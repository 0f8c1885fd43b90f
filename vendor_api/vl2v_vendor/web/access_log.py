"""A line of the log for each request, within bounds that nobody's flood can exceed.

What was sold, and what is the vendor's own fault, always has its line. Of all else, such as refusals, an account has a
number of lines a minute, and so have all together who show no good key. The rest are counted in one line.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from contextvars import Context
from typing import Final

from vl2v_vendor.observe.request_trace import RequestTrace
from vl2v_vendor.web.middleware import PROBES

_MOST_LINES: Final = 1000
_WINDOW_SECONDS: Final = 60.0
_NAMED: Final = 5
_INTERNAL_STATUS: Final = 500

_log = logging.getLogger("vl2v_vendor.access")


class AccessLog:
    """Writes the lines; used on the event loop alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lines: Counter[str] = Counter()
        self._window_end = clock() + _WINDOW_SECONDS

    def write(self, trace: RequestTrace) -> None:
        """Write the line of a request, or count it."""
        level = logging.WARNING if trace.status >= _INTERNAL_STATUS else logging.INFO
        if trace.endpoint in PROBES:
            level = logging.DEBUG
        if not _log.isEnabledFor(level) or not self._has_room(trace):
            return
        fields = {
            "method": trace.method,
            "path": trace.path,
            "status": trace.status,
            "milliseconds": round(1000 * trace.seconds, 1),
            "stage_milliseconds": {stage: round(1000 * seconds, 2) for stage, seconds in trace.stages.items()},
            **trace.facts,
        }
        _log.log(
            level, "%(method)s %(path)s %(status)s %(milliseconds)s ms %(request_id)s", fields, extra={"fields": fields}
        )

    def _has_room(self, trace: RequestTrace) -> bool:
        """Count a request; return whether it may have a line of its own."""
        now = self._clock()
        if now >= self._window_end:
            self._write_rest()
            self._lines.clear()
            self._window_end = now + _WINDOW_SECONDS
        if trace.status == _INTERNAL_STATUS or trace.facts.get("billed_units"):
            return True
        who = trace.facts.get("account_id", "nobody's key")
        self._lines[who] += 1
        return self._lines[who] <= _MOST_LINES

    def _write_rest(self) -> None:
        rest = {who: lines - _MOST_LINES for who, lines in self._lines.most_common() if lines > _MOST_LINES}
        if rest:
            named = dict(list(rest.items())[:_NAMED])
            told = ", ".join(f"{number:,} of {who}" for who, number in named.items())
            words = "requests of a minute that billed nothing and have no line: %s"
            # Outside the context of the request in hand, whose line it is not.
            Context().run(_log.warning, words, told, extra={"fields": {"requests_not_logged": named}})
