"""The machine's clock."""

from __future__ import annotations

import time


class SystemClock:
    """Wall-clock time; a ledger never lets it run backwards within an account."""

    def now(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
        return time.time_ns() // 1000
