"""Items that wait for the model, in turn by account.

Each account has a line of its own, under its id or another key, first come first served, and the lines take turns item
by item: a buyer of ten thousand images delays another buyer's single image by one turn. Everything here runs in the
event loop.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


class QueuedRequest(Generic[Out]):
    """The items of one request, and the outcome of each.

    Attributes:
        done: Resolved when every item has its outcome; failed or cancelled when the request is lost as a whole.
        outcomes: An output or an error per item, in order; None while an item has neither.
        submitted: Time of its arrival, in seconds.
        last_began: Time when the model began the last of its batches so far; None before the first.
        items_in_model: Number of its items in batches that were sent to the model.
        idle_limit: Timeout of the request; runs while none of its items is with the model.
    """

    def __init__(self, key: str, count: int) -> None:
        self.key = key
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.outcomes: list[Out | Exception | None] = [None] * count
        self.submitted = time.monotonic()
        self.last_began: float | None = None
        self.items_in_model = 0
        self.idle_limit = asyncio.timeout(None)
        self._missing = count

    def settle(self, index: int, outcome: Out | Exception) -> None:
        """Give one item its outcome, once."""
        self.outcomes[index] = outcome
        self._missing -= 1
        if self._missing == 0 and not self.done.done():
            self.done.set_result(None)

    def move(self, items: int, idle_seconds: float) -> None:
        """Count items into the model, or out of it if negative; without any there, the request may wait so long."""
        self.items_in_model += items
        if not self.done.done():
            now = asyncio.get_running_loop().time()
            self.idle_limit.reschedule(None if self.items_in_model else now + idle_seconds)


@dataclass(eq=False, frozen=True, slots=True)
class Entry(Generic[In, Out]):
    """One item of a request."""

    item: In
    request: QueuedRequest[Out]
    index: int


class FairQueue(Generic[In, Out]):
    """The lines of all keys. It does not bound itself: who pushes has checked that there is room."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, OrderedDict[Entry[In, Out], None]] = OrderedDict()
        self.items = 0

    def push(self, entries: Sequence[Entry[In, Out]]) -> None:
        """Queue items of one key behind those that it has already."""
        for entry in entries:
            self._lines.setdefault(entry.request.key, OrderedDict())[entry] = None
        self.items += len(entries)

    def take(self, count: int) -> list[Entry[In, Out]]:
        """Take up to `count` items, one per key and turn."""
        taken: list[Entry[In, Out]] = []
        while self._lines and len(taken) < count:
            key, line = self._lines.popitem(last=False)
            taken.append(line.popitem(last=False)[0])
            if line:
                self._lines[key] = line
        self.items -= len(taken)
        return taken

    def discard(self, entries: Sequence[Entry[In, Out]]) -> None:
        """Take out those of the entries that still wait."""
        for entry in entries:
            line = self._lines.get(entry.request.key)
            if line is not None and entry in line:
                del line[entry]
                self.items -= 1
                if not line:
                    del self._lines[entry.request.key]

    def items_of(self, key: str) -> int:
        """Return how many items of `key` wait."""
        return len(self._lines.get(key, ()))

    def items_ahead(self, key: str) -> int:
        """Estimate how many items are taken before the next one that `key` queues."""
        own, others = self.items_of(key), len(self._lines.keys() - {key})
        return min(self.items, own + others * (own + 1))
