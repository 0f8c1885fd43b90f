"""Aligning in closed form: the projection that ridge regression gives on the features of the frozen student."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from vl2v_client.student.train.results import SourceScore

PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Shares of the features' mean variance that the penalty is chosen from."""


@torch.no_grad()
def fit_projection(
    projection: nn.Linear, pairs: Iterable[tuple[Tensor, Tensor]], validate: Callable[[], SourceScore]
) -> SourceScore:
    """Set the projection to the ridge regression of targets on features; an intercept is left free.

    One eigendecomposition of `[F, F]` in float64 serves every penalty. Takes `O(n F (F + D))` for `n` pairs, and holds
    `F (F + D)` numbers beside a block of them.

    Args:
        projection: `F` features to `D` outputs; it is changed.
        pairs: Features `[B, F]` and targets `[B, D]`, a block at a time.
        validate: Scores the student as it is; the penalty with the best score is taken, the largest of equals.

    Returns:
        The score of the penalty that was taken.
    """
    width, outputs = projection.in_features, projection.out_features
    sums = torch.zeros(width + 1, width + outputs, dtype=torch.float64)  # products with the features, and with one
    count = 0
    for features, targets in pairs:
        x = features.detach().double().cpu()
        both = torch.cat([x, targets.double().cpu()], dim=1)
        sums += torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], dim=1).T @ both
        count += len(x)
    mean = sums[-1] / count
    centred = sums[:-1] / count - mean[:width, None] * mean
    values, vectors = torch.linalg.eigh(centred[:, :width])
    values, turned = values.clamp(min=0), vectors.T @ centred[:, width:]

    def apply(penalty: float) -> SourceScore:
        weights = vectors @ (turned / (values + penalty * values.mean().clamp(min=1e-12))[:, None])
        projection.weight.copy_(weights.T)
        projection.bias.copy_(mean[width:] - mean[:width] @ weights)
        return validate()

    best = max(PENALTIES, key=lambda penalty: (*apply(penalty).rank, penalty))
    return apply(best)
