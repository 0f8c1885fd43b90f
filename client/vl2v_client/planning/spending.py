"""How many queries a run may use, and what chooses them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vl2v_client.core.errors import UsageError
from vl2v_client.planning.selection import PROBABILITY_SELECTORS, check_selector


@dataclass(frozen=True, slots=True)
class Spending:
    """How a run spends queries.

    Attributes:
        select: what chooses the images, of `planning.selection.SELECTORS`; None asks about all.
        max_queries: how many queries the run uses at most, texts included; given with `select` and only then.
        rounds: 2 spends half on first views, and the rest on all further views of the images whose targets an aligned
            student misses most, as many as that pays for. `margin` and `pcoreset` take two rounds of their own: half
            is spent on a random choice, and they choose the rest.

    Raises:
        UsageError: a name is unknown, or the choices do not fit together.
    """

    select: str | None = None
    max_queries: int | None = None
    rounds: int = 1

    def __post_init__(self) -> None:
        if self.select is not None:
            check_selector(self.select)
        if (self.select is None) != (self.max_queries is None):
            raise UsageError("--select chooses among images within --max-queries: give both")
        if self.rounds not in (1, 2):
            raise UsageError(f"--rounds {self.rounds}: there are 1 and 2")
        if self.rounds == 2 and (self.select is None or self.select in PROBABILITY_SELECTORS):
            raise UsageError(
                f"--rounds 2 adds views to what a selector chose in a first round, and {self.select or 'no --select'} "
                "does not choose so: leave it out, or use --select random"
            )

    @property
    def in_two_rounds(self) -> bool:
        """Whether a first purchase decides on a second."""
        return self.rounds == 2 or self.select in PROBABILITY_SELECTORS

    def to_json(self) -> dict[str, Any]:
        """As `config.json` keeps it."""
        return asdict(self)
