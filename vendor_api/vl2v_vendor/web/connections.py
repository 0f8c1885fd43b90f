"""How many connections may be open, how many of them for one address, and which is closed when there are too many.

This module keeps the accounts. `web/listener.py` accepts or refuses by them, `web/http_protocol.py` reports what each
connection does.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from vl2v_vendor.web.connection_slots import AddressSlots, Cause, Network, Slot, Waiting, address_name, parse_address

_ADDRESS_SHARE: Final = 4
_OVERLAP: Final = 64
_SWEEP_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class ConnectionLimits:
    """The accounts of one server's connections; used on its event loop alone.

    A connection *waits* while it has no request in hand: before its first head is complete, between two requests, and
    while its answer is not read. When there are too many, the one that has waited longest is closed. Refused is a
    connection only if none waits.

    Args:
        max_connections: Connections open at once. For a moment there are up to 64 more, while as many are being closed.
        max_per_address: Connections open at once for one IPv4 address or IPv6 /64; None is a quarter.
        head_seconds: Time from accept, or from the last answer, to the complete head of the next request.
        trusted_proxies: Addresses that have no share of their own, since they speak for others.
        clock: Function that returns seconds that never go back.
    """

    def __init__(
        self,
        max_connections: int,
        *,
        max_per_address: int | None = None,
        head_seconds: float = 10.0,
        trusted_proxies: Sequence[Network] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_connections = max_connections
        self.max_per_address = max_per_address or max(1, max_connections // _ADDRESS_SHARE)
        self.head_seconds = head_seconds
        self.trusted_proxies = tuple(trusted_proxies)
        self.open = 0
        self.counts: Counter[Cause] = Counter()
        self._clock = clock
        self._addresses: dict[str, AddressSlots] = {}
        self._waiting = Waiting()
        # A burst of one address that has not entered yet does not use up its share.
        self._most_arriving = max(1, min(_OVERLAP, self.max_per_address // 2))
        self._arriving = 0
        self._closing = 0
        self._logged: Counter[Cause] = Counter()
        self._log_due = 0.0

    @property
    def is_crowded(self) -> bool:
        """Whether some have to enter, or be gone, before the next one is accepted."""
        return self._arriving >= self._most_arriving or self.open >= self.max_connections + _OVERLAP

    def admit(self, host: str) -> bool:
        """Count a connection that was accepted, or say that there is no room for it."""
        name = address_name(host)
        address = self._addresses.get(name)
        if address is not None and address.busy + address.arriving >= address.share:
            self.count("refused_address")
            return False
        if self._held >= self.max_connections and not (self._waiting or self._arriving):
            self.count("refused_full")
            return False
        if address is None:
            address = self._addresses[name] = AddressSlots(name, self._share_of(host))
        address.held += 1
        address.arriving += 1
        self.open += 1
        self._arriving += 1
        return True

    def enter(self, host: str, abort: Callable[[], None]) -> Slot:
        """Give an admitted connection its place, and close the one that has waited longest if that is one too many.

        Args:
            host: Address as it was admitted.
            abort: Function that closes the connection at once; `leave` follows.
        """
        address = self._addresses[address_name(host)]
        address.arriving -= 1
        self._arriving -= 1
        slot = Slot(address, abort)
        self.wait(slot, self.head_seconds)
        # One goes for each one that enters, not more: others of the same burst are yet to enter, and close theirs.
        if address.held > address.share:
            self._close(address.waiting.first(), "closed_address")
        elif self._held > self.max_connections:
            self._close(self._waiting.first(), "closed_full")
        return slot

    def wait(self, slot: Slot, seconds: float, cause: Cause = "slow_request") -> None:
        """Note that a connection has no request in hand from now on, and how long it may stay so."""
        if slot.is_closing:
            return
        if slot.is_busy:
            slot.is_busy = False
            slot.address.busy -= 1
        else:
            self._forget(slot)
        slot.deadline, slot.cause = self._clock() + seconds, cause
        self._waiting.add(slot)
        slot.address.waiting.add(slot)

    def work(self, slot: Slot) -> None:
        """Note that a connection has a request in hand."""
        if slot.is_closing or slot.is_busy:
            return
        self._forget(slot)
        slot.is_busy = True
        slot.address.busy += 1

    def recognise(self, slot: Slot) -> None:
        """Note that a good key was shown on a connection; call `wait` or `work` after it."""
        if not slot.is_customer:
            self._forget(slot)
            slot.is_customer = True

    def leave(self, slot: Slot) -> None:
        """Free the place of a connection that is closed."""
        self.open -= 1
        if slot.is_closing:
            self._closing -= 1
            return
        if slot.is_busy:
            slot.address.busy -= 1
        self._release(slot)

    def count(self, cause: Cause) -> None:
        """Count a refusal or a closure, for the metrics and the log."""
        self.counts[cause] += 1

    def is_trusted(self, host: str) -> bool:
        """Whether an address is a trusted proxy's."""
        if not self.trusted_proxies:
            return False
        address = parse_address(host)
        return address is not None and any(address in network for network in self.trusted_proxies)

    async def watch(self) -> None:
        """Close what is overdue, and log what was refused, until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            self.sweep()

    def sweep(self) -> None:
        """Close every connection that has waited too long; log at most a line a minute."""
        now = self._clock()
        for slot in self._waiting.overdue(now):
            self._close(slot, slot.cause)
        if now >= self._log_due and self.counts != self._logged:
            self._write_line()
            self._logged, self._log_due = self.counts.copy(), now + _LOG_SECONDS

    @property
    def _held(self) -> int:
        return self.open - self._closing

    def _share_of(self, host: str) -> int:
        return sys.maxsize if self.is_trusted(host) else self.max_per_address

    def _close(self, slot: Slot, cause: Cause) -> None:
        self.count(cause)
        slot.is_closing = True
        self._closing += 1
        self._release(slot)
        slot.abort()

    def _release(self, slot: Slot) -> None:
        self._forget(slot)
        slot.address.held -= 1
        if slot.address.held == 0:
            del self._addresses[slot.address.name]

    def _forget(self, slot: Slot) -> None:
        self._waiting.discard(slot)
        slot.address.waiting.discard(slot)

    def _write_line(self) -> None:
        fresh = {cause: number for cause, number in (self.counts - self._logged).items() if number}
        told = ", ".join(f"{number:,} {cause}" for cause, number in fresh.items())
        busiest = max(self._addresses.values(), key=lambda address: address.held, default=None)
        most = f", {busiest.held:,} of them from {busiest.name}" if busiest is not None else ""
        _log.warning(
            "connections refused or closed since the last such line: %s; %s open%s",
            told,
            f"{self.open:,}",
            most,
            extra={"fields": {"connections": {"open": self.open, **fresh}}},
        )
