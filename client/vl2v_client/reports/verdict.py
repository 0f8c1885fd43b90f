"""How the exported student stands against the other rows of its report, as far as the images tell."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vl2v_client.evaluation.accuracy import ImagePrediction
from vl2v_client.evaluation.intervals import Estimate, accuracy_interval, known_difference
from vl2v_client.reports.pages import MINUS, counted, interval, signed_range
from vl2v_client.reports.report import CHANCE, MAJORITY, ZERO_SHOT, ReportRow, RunReport


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """A row of the report on the images that the rows are scored on.

    Attributes:
        accuracy: With its interval; `None` if the row was not scored.
        difference: The exported student's accuracy less this row's; `None` for that student.
    """

    name: str
    kind: Literal["main", "reference", "other"]
    accuracy: Estimate | None
    difference: Estimate | None = None

    @property
    def word(self) -> str:
        """What the difference says of the exported student."""
        return "" if self.difference is None else self.difference.word

    @property
    def points(self) -> str:
        """The difference in points."""
        return "-" if self.difference is None else f"{100 * self.difference.value:+.1f}".replace("-", MINUS)

    @property
    def interval(self) -> str:
        """The difference's interval in words."""
        return "-" if self.difference is None else signed_range(self.difference.low, self.difference.high)


def row_verdicts(report: RunReport, predictions: Sequence[ImagePrediction]) -> list[RowVerdict]:
    """Return every row of a report, the exported one last, from accuracies and from what is known by image."""
    right: dict[str, dict[str, bool]] = {}
    for one in predictions:
        right.setdefault(one.classifier, {})[one.path] = one.is_right
    exported = report.rows[-1]
    own = _accuracy(report, exported, right)
    verdicts = []
    for row in report.rows[:-1]:
        accuracy, difference = _accuracy(report, row, right), None
        if accuracy is not None and own is not None and row.name == CHANCE:
            difference = own.less(accuracy.value)
        elif accuracy is not None and own is not None:
            difference = known_difference(own, accuracy, right.get(exported.name, {}), right.get(row.name, {}))
        verdicts.append(RowVerdict(row.name, "reference" if row.name == ZERO_SHOT else "other", accuracy, difference))
    return [*verdicts, RowVerdict(exported.name, "main", own)]


def _accuracy(report: RunReport, row: ReportRow, right: dict[str, dict[str, bool]]) -> Estimate | None:
    said = right.get(row.name)
    share = row.source_validation if report.target_domain is None else row.target
    if share is None or not report.tested_images:
        return None
    if row.name == CHANCE:
        return Estimate(share, share, share)
    if report.target_domain is None and said:  # every image counts alike, as in a difference by image
        return accuracy_interval(sum(said.values()) / len(said), len(said))
    return accuracy_interval(share, report.tested_images)


def sentence(verdicts: Sequence[RowVerdict], place: str, images: int) -> str:
    """Return the verdict in words: the interval, then whom the student beats, who beats it, and what is open."""
    *others, exported = verdicts
    if exported.accuracy is None:
        return ""
    share = exported.accuracy
    lines = [f"95 % interval {interval(share)}, on {counted(images, 'image')} of {place}."]
    for word, begins in (("better", "Better than"), ("worse", "Worse than"), ("undecided", "Undecided against")):
        names = [_named(one.name) for one in others if one.word == word]
        if names:
            listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
            lines.append(f"{begins} {listed}.")
    return " ".join(lines)


def _named(name: str) -> str:
    return f"the {name}" if name in (MAJORITY, ZERO_SHOT) else name
