"""Options and values that earlier versions had: each is refused with the version that removed it and what to use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from vl2v_client.core.errors import UsageError

REMOVED_IN = "0.2.0"

REMOVED_OPTIONS: Mapping[str, str] = MappingProxyType(
    {
        "--rounds": "a run buys in one round: leave it out",
        "--style-targets": "styled views are bought, or borrow their image's target: leave it out, and choose how many "
        "are bought with --views",
    }
)
"""Option: what to do instead."""

_SELECTORS = "use --select random, or --select k-center to cover the features"
_IMPUTERS = "use --impute none, or --impute ridge"

REMOVED_VALUES: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "--select": dict.fromkeys(("herding", "max-herding", "typiclust", "margin", "pcoreset"), _SELECTORS),
        "--impute": dict.fromkeys(("class-mean", "knn"), _IMPUTERS),
        "--carry": {"iidmax": "use --carry swad"},
    }
)
"""Option: its removed values, and what to use instead of each."""


def refuse_removed(words: Sequence[str]) -> None:
    """Refuse a command line that names a removed option or value.

    Args:
        words: The command line without the program's name.

    Raises:
        UsageError: Names the option or value, the version that removed it, and the replacement.
    """
    for word, following in zip(words, [*words[1:], ""], strict=True):
        option, equals, attached = word.partition("=")
        if option in REMOVED_OPTIONS:
            raise UsageError(f"{option} was removed in version {REMOVED_IN}: {REMOVED_OPTIONS[option]}")
        value = attached if equals else following
        if value in REMOVED_VALUES.get(option, ()):
            raise UsageError(f"{option} {value} was removed in version {REMOVED_IN}: {REMOVED_VALUES[option][value]}")
