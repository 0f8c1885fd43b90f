"""How many queries a run may use, and what chooses them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from vl2v_client.core.errors import UsageError
from vl2v_client.planning.selection import check_selector


@dataclass(frozen=True, slots=True)
class Spending:
    """How a run spends queries.

    Attributes:
        select: name of what chooses the images, from `planning.selection.SELECTORS`; None asks about all.
        max_queries: number of queries that the run uses at most, texts included; given with `select` and only then.

    Raises:
        UsageError: a name is unknown, or the choices do not fit together.
    """

    select: str | None = None
    max_queries: int | None = None

    def __post_init__(self) -> None:
        if self.select is not None:
            check_selector(self.select)
        if (self.select is None) != (self.max_queries is None):
            raise UsageError("--select chooses among images within --max-queries: give both")

    def to_json(self) -> dict[str, Any]:
        """As `config.json` keeps it."""
        return asdict(self)
