"""How many connections may be open, how many of them for one address, and which is closed when there are too many.

This module keeps the accounts. The listener of `web/transport.py` accepts or refuses by them, its protocol reports what
each connection does.
"""

import asyncio
import functools
import ipaddress
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal

Cause = Literal[
    "refused_full",  # every connection that may be open has a request in hand
    "refused_address",  # every connection that one address may have open has one
    "refused_files",  # the process has no file left
    "closed_full",  # had no request in hand, and another came in its place
    "closed_address",  # the same, for another of the same address
    "slow_request",  # sent no complete head in time
    "slow_reader",  # did not read its answer in time, or left more unread than there is room for
    "malformed",  # sent what is not HTTP
]
"""Why a connection was refused or closed."""


@dataclass(eq=False, slots=True)
class Slot:
    """The place of one open connection."""

    address: "AddressSlots"
    abort: Callable[[], None]
    deadline: float = 0.0
    unread_bytes: int = 0
    cause: Cause = "slow_request"
    is_busy: bool = False
    is_closing: bool = False
    is_customer: bool = False


class Waiting:
    """Connections without a request in hand, in the order in which they are closed to make room.

    Those on which a good key was shown come last: a stranger cannot be one of them.
    """

    def __init__(self) -> None:
        self._lines: tuple[dict[Slot, None], dict[Slot, None]] = ({}, {})  # strangers, customers

    def __iter__(self) -> Iterator[Slot]:
        return chain(*self._lines)

    def __bool__(self) -> bool:
        return any(self._lines)

    def add(self, slot: Slot) -> None:
        """Put one at the end."""
        self._lines[slot.is_customer][slot] = None

    def discard(self, slot: Slot) -> None:
        """Take one out, if it is in."""
        self._lines[slot.is_customer].pop(slot, None)


@dataclass(eq=False, slots=True)
class AddressSlots:
    """The connections of one address, of which `held` are open and not being closed."""

    name: str
    share: int
    held: int = 0
    arriving: int = 0
    busy: int = 0
    unread_bytes: int = 0
    waiting: Waiting = field(default_factory=Waiting)


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV6_HOST_BITS: Final = 64
_REMEMBERED: Final = 1024


@functools.lru_cache(maxsize=_REMEMBERED)
def parse_address(host: str) -> Address | None:
    """Parse an address; None if it is none. IPv4 where it came through an IPv6 socket (`::ffff:192.0.2.1`)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


@functools.lru_cache(maxsize=_REMEMBERED)
def address_name(host: str) -> str:
    """Name whom a connection is counted for: an IPv4 address, an IPv6 network of 64 bits, or else the text itself."""
    address = parse_address(host)
    if not isinstance(address, ipaddress.IPv6Address):
        return host if address is None else str(address)
    return f"{ipaddress.IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS)}/{_IPV6_HOST_BITS}"


_ADDRESS_SHARE: Final = 4
_MAX_UNREAD_BYTES: Final = 2**29
_OVERLAP: Final = 64
_SWEEP_SECONDS: Final = 1.0
_LOG_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class ConnectionLimits:
    """The accounts of one server's connections; used on its event loop alone.

    A connection *waits* while it has no request in hand: before its first head is complete, between two requests, and
    while its answer is not read. When there are too many, the one that has waited longest is closed. Refused is a
    connection only if none waits. All answers have at most `max_unread_bytes` unread together: beyond it, the
    address that leaves most unread loses the connection that has waited longest with some.

    Args:
        max_connections: Connections open at once. For a moment there are up to 64 more, while as many are being closed.
        max_per_address: Connections open at once for one IPv4 address or IPv6 /64; None is a quarter.
        head_seconds: Time from accept, or from the last answer, to the complete head of the next request.
        trusted_proxies: Addresses that have no share of their own, since they speak for others.
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
        self.max_unread_bytes = _MAX_UNREAD_BYTES
        self.open = 0
        self.counts: Counter[Cause] = Counter()
        self._clock = clock
        self._addresses: dict[str, AddressSlots] = {}
        self._waiting = Waiting()
        self._unread_bytes = 0
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
            self.counts["refused_address"] += 1
            return False
        if self._held >= self.max_connections and not (self._waiting or self._arriving):
            self.counts["refused_full"] += 1
            return False
        if address is None:
            address = self._addresses[name] = AddressSlots(
                name, sys.maxsize if self.is_trusted(host) else self.max_per_address
            )
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
            self._close(next(iter(address.waiting)), "closed_address")
        elif self._held > self.max_connections:
            self._close(next(iter(self._waiting)), "closed_full")
        return slot

    def wait(self, slot: Slot, seconds: float, cause: Cause = "slow_request", *, unread_bytes: int = 0) -> None:
        """Note that a connection has no request in hand from now on, how long it may stay so, and what is unread."""
        if slot.is_closing:
            return
        self._forget(slot)
        slot.deadline, slot.cause = self._clock() + seconds, cause
        self._waiting.add(slot)
        slot.address.waiting.add(slot)
        self._hold_unread(slot, unread_bytes)
        while self._unread_bytes > self.max_unread_bytes:
            most = max(self._addresses.values(), key=lambda address: address.unread_bytes)
            self._close(next(one for one in most.waiting if one.unread_bytes), "slow_reader")

    def work(self, slot: Slot) -> None:
        """Note that a connection has a request in hand."""
        if slot.is_closing or slot.is_busy:
            return
        self._forget(slot)
        slot.is_busy = True
        slot.address.busy += 1

    def recognise(self, slot: Slot) -> None:
        """Note that a good key was shown on a connection; call `wait` or `work` after it."""
        self._forget(slot)
        slot.is_customer = True

    def leave(self, slot: Slot) -> None:
        """Free the place of a connection that is closed."""
        self.open -= 1
        if slot.is_closing:
            self._closing -= 1
        else:
            self._release(slot)

    def is_trusted(self, host: str) -> bool:
        """Tell whether an address is a trusted proxy's."""
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
        for slot in [slot for slot in self._waiting if slot.deadline <= now]:
            self._close(slot, slot.cause)
        fresh = dict(self.counts - self._logged)
        if now < self._log_due or not fresh:
            return
        self._logged, self._log_due = self.counts.copy(), now + _LOG_SECONDS
        busiest = max(self._addresses.values(), key=lambda address: address.held, default=None)
        most = f", {busiest.held:,} of them from {busiest.name}" if busiest is not None else ""
        _log.warning(
            "connections refused or closed since the last such line: %s; %s open%s",
            ", ".join(f"{number:,} {cause}" for cause, number in fresh.items()),
            f"{self.open:,}",
            most,
            extra={"fields": {"connections": {"open": self.open, **fresh}}},
        )

    @property
    def _held(self) -> int:
        return self.open - self._closing

    def _close(self, slot: Slot, cause: Cause) -> None:
        self.counts[cause] += 1
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
        """Take a connection out of the counts of waiting and busy ones."""
        slot.address.busy -= slot.is_busy
        slot.is_busy = False
        self._waiting.discard(slot)
        slot.address.waiting.discard(slot)
        self._hold_unread(slot, 0)

    def _hold_unread(self, slot: Slot, unread_bytes: int) -> None:
        more = unread_bytes - slot.unread_bytes
        slot.unread_bytes += more
        slot.address.unread_bytes += more
        self._unread_bytes += more
