"""A run's queries with their plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vl2v_client.planning.choice import RunQueries
from vl2v_client.planning.query_plan import QueryPlan


@dataclass(frozen=True)
class PlannedRun:
    """A run's queries with their plan.

    Attributes:
        queries: Data set, split, views and queries.
        plan: What of them is here, and what the rest costs.
    """

    queries: RunQueries
    plan: QueryPlan

    def cut(self, image_keys: Sequence[str]) -> PlannedRun:
        """Return the run with some of its image queries only, named by cache key, each once, in the order to buy."""
        chosen = set(image_keys)
        pairs = zip(self.queries.images, self.plan.image_keys, strict=True)
        files = {query.sample.path for query, key in pairs if key in chosen}
        return replace(self, plan=self.plan.cut(image_keys, image_files=len(files)))
