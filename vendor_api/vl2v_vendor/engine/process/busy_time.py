"""How long this process has computed, or would have, had there been a processor for it."""

import threading
import time
from contextlib import suppress
from pathlib import Path


def read_busy_seconds() -> float:
    """Return how long the other threads of this process have computed or waited for a processor so far, in seconds.

    The calling thread, which sends heartbeats, is left out: on a crowded machine its own waits would hide a deadlock.
    Where Linux's `schedstat` is missing, this is the processor time of the whole process.
    """
    own = str(threading.get_native_id())
    nanoseconds = 0
    try:
        for thread in Path("/proc/self/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
                computed, waited, _ = (thread / "schedstat").read_text().split()
                nanoseconds += 0 if thread.name == own else int(computed) + int(waited)
    except (OSError, ValueError):
        return time.process_time()
    return nanoseconds / 1e9 if nanoseconds else time.process_time()
