"""What a pilot's few embeddings say about buying more: rules, stated where they are applied. Pure arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.values import generator
from vl2v_client.teacher.imputation import linear_predictions

Verdict = Literal["yes", "no", "undecided"]

IMAGE_WEIGHT_RULE = (
    "0.5 x (teacher's accuracy - majority share) / (1 - majority share), in steps of 0.05: the published weight for a "
    "teacher that is always right, none for one that is no better than the most frequent class"
)
VIEWS_RULE = (
    "by the smaller of the mean cosines between an image's embedding and its flip's or crop's: from 0.98 on 1 view, "
    "from 0.93 on 2, below 4; 0 if images are not worth buying"
)
VERDICT_RULE = (
    "yes if the teacher beats a linear probe of the frozen student on domains that the probe has not seen by more than "
    "two standard errors; no if it loses by as much, or does not beat the majority share by as much; else undecided"
)
SUSPECT_RULE = (
    "the teacher names another class, and cos(image, text of its label) is below the first quartile by more than 1.5 "
    "times the quartiles' distance"
)

HISTOGRAM_STEP = 0.05


@dataclass(frozen=True, slots=True)
class DomainFinding:
    """One source domain.

    Attributes:
        teacher: Zero-shot accuracy, 0 to 1.
        standard_error: Standard error of that accuracy, from `(right + 1) / (images + 2)`: few answers prove little.
        probe: Accuracy of a linear probe of the frozen student that was fitted on the other domains; with one domain,
            by cross-validation.
        majority: Share of the most frequent class.
    """

    domain: str
    images: int
    teacher: float
    standard_error: float
    probe: float
    majority: float


@dataclass(frozen=True, slots=True)
class Advice:
    """What the rules above make of the findings; `difference` is teacher less probe, averaged over the domains."""

    worth_buying: Verdict
    difference: float
    standard_error: float
    image_weight: float
    views: int


def domain_finding(domain: str, right: NDArray[np.bool_], probe: float, labels: NDArray[np.int64]) -> DomainFinding:
    """Return a finding from whether the teacher is right `[n]`, the probe's accuracy and all labels of the domain."""
    count = len(right)
    smoothed = (int(right.sum()) + 1) / (count + 2)
    error = float(np.sqrt(smoothed * (1 - smoothed) / count)) if count else 1.0
    majority = float(np.bincount(labels).max() / len(labels))
    return DomainFinding(domain, count, float(right.mean()) if count else 0.0, error, probe, majority)


def probe_accuracies(
    features: NDArray[np.float32], labels: NDArray[np.int64], domains: Sequence[str], *, seed: int
) -> dict[str, float]:
    """Return accuracy by domain of a linear probe (ridge regression to the classes) that has not seen the images.

    Each domain is judged by a probe fitted on all others; a single one by five folds, drawn from the seed. Takes the
    frozen student's features `[n, F]`, labels and domains `[n]`.
    """
    names = np.asarray(domains)
    several = len(set(domains)) > 1
    groups = names if several else generator(seed, "probe").permutation(len(labels)) % min(5, len(labels))
    right = np.zeros(len(labels), dtype=np.bool_)
    wanted = np.eye(int(labels.max()) + 1)[labels]
    for group in np.unique(groups):
        held = groups == group
        if (~held).sum() >= 2:
            said = linear_predictions(features[~held], wanted[~held], features[held])
            right[held] = said.argmax(axis=1) == labels[held]
    return {str(name): float(right[names == name].mean()) for name in np.unique(names)}


def advise(domains: Sequence[DomainFinding], *, flip_cosine: float, crop_cosine: float) -> Advice:
    """Apply the rules, with every domain counting alike."""
    teacher, probe, majority = (
        float(np.mean([getattr(domain, name) for domain in domains])) for name in ("teacher", "probe", "majority")
    )
    error = float(np.sqrt(sum(domain.standard_error**2 for domain in domains)) / len(domains))
    verdict: Verdict = "undecided"
    if teacher - majority <= 2 * error or probe - teacher > 2 * error:
        verdict = "no"
    elif teacher - probe > 2 * error:
        verdict = "yes"
    better = (teacher - majority) / (1 - majority) if majority < 1 else 0.0
    weight = round(float(np.clip(0.5 * better, 0, 0.5)) * 20) / 20
    alike = min(flip_cosine, crop_cosine)
    views = 0 if verdict == "no" else 1 if alike >= 0.98 else 2 if alike >= 0.93 else 4
    return Advice(verdict, teacher - probe, error, weight, views)


def histogram(cosines: NDArray[np.float64]) -> tuple[tuple[float, int], ...]:
    """Return the lower end of each step of 0.05 between the least and the largest, and how many lie in it."""
    steps = np.floor(cosines / HISTOGRAM_STEP + 1e-9).astype(np.int64)
    counts = np.bincount(steps - steps.min())
    return tuple(
        (round(float(step + steps.min()) * HISTOGRAM_STEP, 2), int(count)) for step, count in enumerate(counts)
    )


def suspects(cosines: NDArray[np.float64], labels: NDArray[np.int64], named: NDArray[np.int64]) -> list[int]:
    """Return images whose label is likely wrong, by `SUSPECT_RULE`, the least likely label first.

    Takes, `[n]` each, the cosines between an image and the text of its label, the labels, and the teacher's classes.
    """
    first, third = np.quantile(cosines, (0.25, 0.75))
    found = np.flatnonzero((named != labels) & (cosines < first - 1.5 * (third - first)))
    return [int(row) for row in found[np.argsort(cosines[found], kind="stable")]]
