"""The places of open connections, and the order in which they are given up."""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable
from typing import Final, Literal

Cause = Literal[
    "refused_full",  # every connection that may be open has a request in hand
    "refused_address",  # every connection that one address may have open has one
    "refused_files",  # the process has no file left
    "closed_full",  # had no request in hand, and another came in its place
    "closed_address",  # the same, for another of the same address
    "slow_request",  # sent no complete head in time
    "slow_reader",  # did not read its answer in time
    "malformed",  # sent what is not HTTP
]
"""Why a connection was refused or closed."""


class Slot:
    """The place of one open connection."""

    __slots__ = ("abort", "address", "cause", "deadline", "is_busy", "is_closing", "is_customer")

    def __init__(self, address: AddressSlots, abort: Callable[[], None]) -> None:
        self.address = address
        self.abort = abort
        self.deadline = 0.0
        self.cause: Cause = "slow_request"
        self.is_busy = False
        self.is_closing = False
        self.is_customer = False


class Waiting:
    """Connections without a request in hand, in the order in which they are closed to make room.

    Those on which a good key was shown come last: a stranger cannot be one of them.
    """

    def __init__(self) -> None:
        self._strangers: dict[Slot, None] = {}
        self._customers: dict[Slot, None] = {}

    def __len__(self) -> int:
        return len(self._strangers) + len(self._customers)

    def add(self, slot: Slot) -> None:
        """Put one at the end."""
        (self._customers if slot.is_customer else self._strangers)[slot] = None

    def discard(self, slot: Slot) -> None:
        """Take one out, if it is in."""
        (self._customers if slot.is_customer else self._strangers).pop(slot, None)

    def first(self) -> Slot:
        """The one to close first; there has to be one."""
        return next(iter(self._strangers or self._customers))

    def overdue(self, now: float) -> list[Slot]:
        """Those whose deadline has come."""
        return [slot for slots in (self._strangers, self._customers) for slot in slots if slot.deadline <= now]


class AddressSlots:
    """The connections of one address, of which `held` are open and not being closed."""

    def __init__(self, name: str, share: int) -> None:
        self.name = name
        self.share = share
        self.held = 0
        self.arriving = 0
        self.busy = 0
        self.waiting = Waiting()


Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV6_HOST_BITS: Final = 64
_REMEMBERED: Final = 1024


@functools.lru_cache(maxsize=_REMEMBERED)
def parse_address(host: str) -> Address | None:
    """The address that a text is, if it is one: IPv4 where it came through an IPv6 socket (`::ffff:192.0.2.1`)."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


@functools.lru_cache(maxsize=_REMEMBERED)
def address_name(host: str) -> str:
    """Whom connections are counted for: an IPv4 address, an IPv6 network of 64 bits, or else the text itself."""
    address = parse_address(host)
    if not isinstance(address, ipaddress.IPv6Address):
        return host if address is None else str(address)
    return f"{ipaddress.IPv6Address(int(address) >> _IPV6_HOST_BITS << _IPV6_HOST_BITS)}/{_IPV6_HOST_BITS}"
