"""When a model process counts as stuck.

It sends a heartbeat four times a second, also while it is idle and while it computes. It is stuck when

- nothing came from it, neither heartbeat nor answer, for the limit of the largest batch;
- it has had a batch, and neither computed nor waited for a processor, for that batch's limit; or
- it has had a batch for five times that batch's limit.

A batch's limit is the longer of two seconds and three times what its size took at warm-up, in the slowest call. The
factor five is for a process that is merely slow: heartbeats carry the time that its threads computed or waited for a
processor, which tells a busy machine from a deadlock. Time in which the watching side itself stood still is not
counted.
"""

from typing import Final

PERIOD_SECONDS: Final = 0.25
"""Time between two heartbeats, and between two checks."""
_WARM_UP_FACTOR: Final = 3.0
_COMPUTING_FACTOR: Final = 5.0
_COMPUTING_SHARE: Final = 0.1
"""Share of one processor: more than a waiting process uses, less than a computing one gets on a crowded machine."""


class Watchdog:
    """Watches one process; pure, so the caller brings the time."""

    def __init__(self, floor_seconds: float, largest_batch_seconds: float) -> None:
        self._floor_seconds = floor_seconds
        self.silence_limit = max(floor_seconds, _WARM_UP_FACTOR * largest_batch_seconds)
        self._silent_seconds = 0.0
        self._batch_limit: float | None = None
        self._batch_seconds = 0.0
        self._idle_seconds = 0.0
        self._since_heartbeat_seconds = 0.0
        self._busy_seconds = 0.0

    def on_heartbeat(self, busy_seconds: float | None = None) -> None:
        """Note a sign of life; a heartbeat carries how long the process has computed or waited to compute so far."""
        self._silent_seconds = 0.0
        if busy_seconds is None:
            return
        busy = busy_seconds - self._busy_seconds
        if busy < _COMPUTING_SHARE * self._since_heartbeat_seconds:
            self._idle_seconds += self._since_heartbeat_seconds
        else:  # a wait is known once it is over, and takes back what it looked like
            self._idle_seconds = max(0.0, self._idle_seconds - busy)
        self._busy_seconds = busy_seconds
        self._since_heartbeat_seconds = 0.0

    def begin_batch(self, warm_up_seconds: float | None) -> None:
        """Note that the process has a batch now that took so long at warm-up; None if it has none."""
        self._batch_limit = (
            None if warm_up_seconds is None else max(self._floor_seconds, _WARM_UP_FACTOR * warm_up_seconds)
        )
        self._batch_seconds = self._idle_seconds = 0.0

    def check(self, elapsed_seconds: float) -> str | None:
        """Return why the process is stuck, so many seconds after the last check; None if it is not."""
        counted = min(elapsed_seconds, 2 * PERIOD_SECONDS)
        self._silent_seconds += counted
        self._since_heartbeat_seconds += counted
        self._batch_seconds += counted
        if self._silent_seconds > self.silence_limit:
            return f"it gave no sign of life for {self._silent_seconds:.1f} seconds"
        if self._batch_limit is None:
            return None
        if self._idle_seconds > self._batch_limit:
            return f"it has had a batch for {self._batch_seconds:.1f} seconds and does not compute"
        if self._batch_seconds > _COMPUTING_FACTOR * self._batch_limit:
            return f"it has computed one batch for {self._batch_seconds:.1f} seconds"
        return None
