"""Leave-one-domain-out: runs of one method over targets and seeds, in one row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean with its uncertainty.

    Attributes:
        mean: Mean of the values.
        standard_error: Its standard error, from the sample deviation; `None` for a single value.
    """

    mean: float
    standard_error: float | None


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard error of at least one value."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return Spread(mean, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return Spread(mean, math.sqrt(variance / len(values)))


@dataclass(frozen=True, slots=True)
class Outcome:
    """One run's exported student.

    Attributes:
        method: Its name in the literature.
        target: The domain that was held out.
        seed: Seed of the training.
        in_domain: Mean of the source domains' accuracies on their hold-out, 0 to 1.
        target_in: Accuracy on the 80 % of the target that DomainBed's tables use.
        whole_target: Accuracy on all of it.
    """

    method: str
    target: str
    seed: int
    in_domain: float
    target_in: float
    whole_target: float


@dataclass(frozen=True)
class MethodRow:
    """One method over all targets.

    Attributes:
        method: Its name.
        by_target: Accuracy on each target, over the seeds.
        mean: Over the targets, which count alike, within each seed; then over the seeds.
        worst: The target with the lowest mean.
        in_domain: Mean on the source domains' hold-out, likewise.
    """

    method: str
    by_target: Mapping[str, Spread]
    mean: Spread
    worst: str
    in_domain: Spread


def method_rows(outcomes: Iterable[Outcome], *, whole_target: bool = False) -> list[MethodRow]:
    """Return one row per method, in the order in which they come; every method needs the same targets and seeds.

    Args:
        outcomes: Outcomes of finished runs, each of one method, target and seed.
        whole_target: Score on all of each target, and not on DomainBed's 80 %.
    """
    of_method: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        of_method.setdefault(outcome.method, []).append(outcome)
    return [_row(method, found, whole_target) for method, found in of_method.items()]


def _row(method: str, outcomes: Sequence[Outcome], whole_target: bool) -> MethodRow:
    def accuracy(outcome: Outcome) -> float:
        return outcome.whole_target if whole_target else outcome.target_in

    targets, seeds = (dict.fromkeys(values) for values in zip(*((o.target, o.seed) for o in outcomes), strict=True))
    by_target = {target: spread([accuracy(o) for o in outcomes if o.target == target]) for target in targets}
    by_seed = [[o for o in outcomes if o.seed == seed] for seed in seeds]
    return MethodRow(
        method=method,
        by_target=by_target,
        mean=spread([spread([accuracy(o) for o in of_one]).mean for of_one in by_seed]),
        worst=min(by_target, key=lambda target: by_target[target].mean),
        in_domain=spread([spread([o.in_domain for o in of_one]).mean for of_one in by_seed]),
    )
