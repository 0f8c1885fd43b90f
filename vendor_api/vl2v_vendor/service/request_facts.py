"""What is known about the request in hand, for its log lines, noted by whoever learns it.

The facts lie in a context variable, like the stage clock: a service that knows whose key it is, or what was billed,
need not be handed the request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

_NONE: Mapping[str, Any] = MappingProxyType({})

_facts: ContextVar[dict[str, Any] | None] = ContextVar("request_facts", default=None)


@contextmanager
def request_facts(**known: object) -> Iterator[Mapping[str, Any]]:
    """Collect facts about the request that runs in this block, beginning with `known`."""
    facts: dict[str, Any] = dict(known)
    token = _facts.set(facts)
    try:
        yield facts
    finally:
        _facts.reset(token)


def note(**facts: object) -> None:
    """Add facts about this context's request, if there is one. Never a secret: they are logged."""
    known = _facts.get()
    if known is not None:
        known.update(facts)


def known_facts() -> Mapping[str, Any]:
    """What is known so far about this context's request; empty outside of one."""
    known = _facts.get()
    return _NONE if known is None else known
