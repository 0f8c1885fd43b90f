"""95 % intervals of accuracies, and of the difference between two classifiers.

They are of the images alone: another seed of the training, or another draw of the training images, varies as well.
Wilson's score interval (1927), and the intervals that Newcombe (Statistics in Medicine 17, 1998) makes of two of them:
method 10 for two sets of images, and method 10 of his paper on paired data for two classifiers on the same images.
Unlike those from a normal deviate they hold for few images and near 0 and 1.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Z = 1.959963984540054
"""Of the normal distribution, for 95 % within both sides."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share, or a difference of two, with its 95 % interval; -1 to 1."""

    value: float
    low: float
    high: float

    @property
    def word(self) -> Literal["better", "worse", "undecided"]:
        """What a difference says of the first of the two: undecided where the interval holds zero."""
        return "better" if self.low > 0 else "worse" if self.high < 0 else "undecided"

    def less(self, constant: float) -> "Estimate":
        """Return the estimate less a constant, such as chance."""
        return Estimate(self.value - constant, self.low - constant, self.high - constant)


def accuracy_interval(accuracy: float, images: int) -> Estimate:
    """Return an accuracy, 0 to 1, on at least one image with Wilson's interval."""
    middle = (accuracy + Z**2 / (2 * images)) / (1 + Z**2 / images)
    half = Z * math.sqrt(accuracy * (1 - accuracy) / images + Z**2 / (4 * images**2)) / (1 + Z**2 / images)
    return Estimate(accuracy, min(accuracy, middle - half), max(accuracy, middle + half))


def difference_interval(first: Estimate, second: Estimate, correlation: float = 0.0) -> Estimate:
    """Return first less second, each with its Wilson interval; without correlation, of two sets of images."""

    def width(above: float, below: float) -> float:
        return math.sqrt(max(0.0, above**2 - 2 * correlation * above * below + below**2))

    difference = first.value - second.value
    low = difference - width(first.value - first.low, second.high - second.value)
    high = difference + width(first.high - first.value, second.value - second.low)
    return Estimate(difference, max(-1.0, low), min(1.0, high))


def paired_interval(first: Sequence[bool], second: Sequence[bool]) -> Estimate:
    """Return first less second, from whether each is right about the same images, `[N]` both, at least one."""
    images = len(first)
    both = sum(one and other for one, other in zip(first, second, strict=True))
    right, others = sum(first), sum(second)
    alone, other_alone = right - both, others - both
    neither = images - both - alone - other_alone
    margins = right * (images - right) * others * (images - others)
    covariance = float(both * neither - alone * other_alone)
    if covariance > 0:  # Newcombe's correction for continuity
        covariance = max(0.0, covariance - images / 2)
    correlation = covariance / math.sqrt(margins) if margins else 0.0
    first_share, second_share = (accuracy_interval(count / images, images) for count in (right, others))
    return difference_interval(first_share, second_share, correlation)


def known_difference(
    first: Estimate, second: Estimate, right: Mapping[str, bool], other: Mapping[str, bool]
) -> Estimate:
    """Return first less second: paired if it is known of the same images, by their paths, whether each is right."""
    if right and right.keys() == other.keys():
        return paired_interval(list(right.values()), [other[path] for path in right])
    return difference_interval(first, second)
