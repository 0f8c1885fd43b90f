"""Which views a step sees: a function of `(seed, stage, step)`, so that resuming needs no sampler state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.seeds import generator


def rows_by_domain(domains: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the rows of each domain, in the domains' sorted order."""
    names = np.asarray(domains)
    return [np.flatnonzero(names == domain) for domain in sorted(set(domains))]


def sample_batch(
    domain_rows: Sequence[NDArray[np.int64]], *, views: int, batch_size: int, seed: int, stage: str, step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw `batch_size` rows of every domain, with replacement, and one of the stored views for each.

    Args:
        domain_rows: Rows of each source domain; every domain has the same say, however large.
        views: `K`, stored views per row.
        batch_size: Rows per domain.
        seed: Seed of the run.
        stage: Its name.
        step: Number of the step, from 0.

    Returns:
        Rows and views, `[domains * batch_size]` each.
    """
    random = generator(seed, "batch", stage, step)
    rows = np.concatenate([of_one[random.integers(0, len(of_one), batch_size)] for of_one in domain_rows])
    return rows, random.integers(0, views, len(rows))
