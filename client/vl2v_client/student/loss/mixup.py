"""Mixup with mixed targets: pairs of views and what is known of them, blended, at no query.

Zhang et al., arXiv 1710.09412. An approximation for a teacher's targets: what a teacher says of a blend is not the
blend of what it says. Where the backbone is frozen, its features are blended, since they are computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.core.seeds import generator


@dataclass(frozen=True)
class Mix:
    """The other half of a step's batch.

    Attributes:
        rows: `[B]`, whom each view of the batch is blended with: the batch's own views in another order.
        views: `[B]`, likewise.
        share: Share of the batch's views in the blend, 0 to 1; their partners have the rest.
    """

    rows: NDArray[np.int64]
    views: NDArray[np.int64]
    share: float

    def blend(self, own: Tensor, others: Tensor) -> Tensor:
        """Return inputs or features `[B, ...]` of the batch and of its partners, blended."""
        return self.share * own + (1 - self.share) * others

    def blend_terms(self, own: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return loss terms of the blend's outputs against the batch's targets and against its partners', blended.

        Every loss that is linear in its target, as cosine and cross-entropy are, equals the one against the blended
        target. The blended floor is lower than the blend can reach, so the gap to it stays open.
        """
        return {name: self.share * value + (1 - self.share) * others[name] for name, value in own.items()}


def draw_mix(
    rows: NDArray[np.int64], views: NDArray[np.int64], *, alpha: float, seed: int, stage: str, step: int
) -> Mix | None:
    """Return partners and a share from `Beta(alpha, alpha)`, a function of `(seed, stage, step)`; `None` if alpha is 0.

    Args:
        rows: Rows of the step's whole batch, `[B]`.
        views: Views of the step's whole batch, `[B]`.
        alpha: Parameter of the distribution, above 0; small values leave most blends near one of the two.
        seed: Seed of the run.
        stage: Its name.
        step: Number of the step, from 0.
    """
    if alpha == 0:
        return None
    random = generator(seed, "mixup", stage, step)
    share, partners = float(random.beta(alpha, alpha)), random.permutation(len(rows))
    return Mix(rows[partners], views[partners], share)
