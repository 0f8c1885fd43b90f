"""What a run's predictions say image by image: how far confidence can be trusted, and the mistakes made most surely."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vl2v_client.evaluation.accuracy import ImagePrediction

BINS = 10


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The images of one range of confidence.

    Attributes:
        low: Lower end of the range, 0 to 1.
        high: Its upper end.
        images: Number of images in it, at least one.
        confidence: Their mean confidence.
        accuracy: Share of them that is right.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


def reliability(predictions: Sequence[ImagePrediction]) -> tuple[ReliabilityBin, ...]:
    """Return the ranges of confidence that hold any image, the lowest first."""
    found: dict[int, list[ImagePrediction]] = {}
    for one in predictions:
        found.setdefault(min(BINS - 1, int(one.probability * BINS)), []).append(one)
    return tuple(
        ReliabilityBin(
            low=place / BINS,
            high=(place + 1) / BINS,
            images=len(members),
            confidence=sum(one.probability for one in members) / len(members),
            accuracy=sum(one.is_right for one in members) / len(members),
        )
        for place, members in sorted(found.items())
    )


def confident_mistakes(predictions: Iterable[ImagePrediction], count: int) -> tuple[ImagePrediction, ...]:
    """Return at most `count` wrong predictions, the most confident first; equals by path."""
    wrong = [one for one in predictions if not one.is_right]
    return tuple(sorted(wrong, key=lambda one: (-one.probability, one.path))[:count])
