"""How the exported student stands against the other rows of its report, as far as the images tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vl2v_client.evaluation.accuracy import ImagePrediction
from vl2v_client.evaluation.intervals import Estimate, accuracy_interval, difference_interval, paired_interval
from vl2v_client.export.pages import MINUS, counted, percent, signed_range
from vl2v_client.export.report import CHANCE, MAJORITY, ZERO_SHOT, ReportRow, RunReport

Word = Literal["better", "worse", "undecided", ""]


@dataclass(frozen=True, slots=True)
class Opponent:
    """A row of the report on the images that it is judged by.

    Attributes:
        accuracy: With its interval; `None` if the row was not judged.
        difference: The exported student's accuracy less this row's; `None` for that student.
        paired: Whether the difference is of predictions for the same images.
    """

    name: str
    kind: Literal["main", "reference", "other"]
    accuracy: Estimate | None
    difference: Estimate | None = None
    paired: bool = False

    @property
    def word(self) -> Word:
        """What the difference says of the exported student."""
        if self.difference is None:
            return ""
        if not self.difference.decides:
            return "undecided"
        return "better" if self.difference.value > 0 else "worse"

    @property
    def points(self) -> str:
        """The difference in points."""
        return "-" if self.difference is None else f"{100 * self.difference.value:+.1f}".replace("-", MINUS)

    @property
    def interval(self) -> str:
        """The difference's interval in words."""
        return "-" if self.difference is None else signed_range(self.difference.low, self.difference.high)


def judge(report: RunReport, predictions: Sequence[ImagePrediction]) -> list[Opponent]:
    """Return every row of a report, the exported one last, from accuracies and from what is known by image."""
    right: dict[str, dict[str, bool]] = {}
    for one in predictions:
        right.setdefault(one.classifier, {})[one.path] = one.is_right
    exported = report.rows[-1]
    own = _accuracy(report, exported, right)
    opponents = []
    for row in report.rows[:-1]:
        accuracy = _accuracy(report, row, right)
        kind: Literal["reference", "other"] = "reference" if row.name == ZERO_SHOT else "other"
        if accuracy is None or own is None:
            opponents.append(Opponent(row.name, kind, accuracy))
            continue
        mine, others = right.get(exported.name, {}), right.get(row.name, {})
        is_paired = bool(mine) and mine.keys() == others.keys()
        if row.name == CHANCE:
            difference, is_paired = own.less(accuracy.value), True
        elif is_paired:
            difference = paired_interval(list(mine.values()), [others[path] for path in mine])
        else:
            difference = difference_interval(own, accuracy)
        opponents.append(Opponent(row.name, kind, accuracy, difference, is_paired))
    return [*opponents, Opponent(exported.name, "main", own)]


def _accuracy(report: RunReport, row: ReportRow, right: dict[str, dict[str, bool]]) -> Estimate | None:
    said = right.get(row.name)
    share = row.source_validation if report.target_domain is None else row.target
    if share is None or not report.judged:
        return None
    if row.name == CHANCE:
        return Estimate(share, share, share)
    if report.target_domain is None and said:  # every image counts alike, as in a difference by image
        return accuracy_interval(sum(said.values()) / len(said), len(said))
    return accuracy_interval(share, report.judged)


def sentence(opponents: Sequence[Opponent], place: str, images: int) -> str:
    """Return the verdict in words: the interval, then whom the student beats, who beats it, and what is open."""
    *others, exported = opponents
    if exported.accuracy is None:
        return ""
    share = exported.accuracy
    lines = [f"95 % interval {percent(share.low)} to {percent(share.high)}, on {counted(images, 'image')} of {place}."]
    for word, begins in (("better", "Better than"), ("worse", "Worse than"), ("undecided", "Undecided against")):
        names = [_named(one.name) for one in others if one.word == word]
        if names:
            listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
            lines.append(f"{begins} {listed}.")
    return " ".join(lines)


def _named(name: str) -> str:
    return f"the {name}" if name in (MAJORITY, ZERO_SHOT) else name
