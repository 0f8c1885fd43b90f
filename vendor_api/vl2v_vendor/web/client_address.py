"""Whose a connection or a request is, by its address."""

from __future__ import annotations

import functools
import ipaddress
from typing import Final

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
