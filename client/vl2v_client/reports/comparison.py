"""Several runs side by side: a table, and a page with their accuracies, what they cost, and in what they differ."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vl2v_client.core.progress import format_micro
from vl2v_client.evaluation.accuracy import ImagePrediction
from vl2v_client.evaluation.intervals import Estimate, accuracy_interval, known_difference
from vl2v_client.reports.charts import Dot, dots
from vl2v_client.reports.html_page import render_page
from vl2v_client.reports.pages import MINUS, counted, percent, points, signed_range
from vl2v_client.reports.query_curve import QueryPoint, query_curve
from vl2v_client.reports.report import RunReport

HEADER = (
    *("run", "tested on", "method", "queries", "paid"),
    *("source validation", "accuracy", "95 % interval", "points against the first"),
)
_BRIEF = ("run", "queries", "accuracy", "95 % interval", "points against the first")


@dataclass(frozen=True)
class ComparedRun:
    """One run.

    Attributes:
        name: The end of its folder's path.
        report: Its report.
        own: What its exported student said of the images that it is scored on; of none in earlier runs.
    """

    name: str
    report: RunReport
    own: tuple[ImagePrediction, ...] = ()

    @property
    def place(self) -> str:
        """What its accuracy is measured on."""
        return self.report.target_domain or "its hold-out"

    @property
    def queries(self) -> int:
        """How many its student learnt from; of a local teacher, how many a vendor would have billed."""
        bill = self.report.purchase or self.report.local
        return 0 if bill is None else bill.images + bill.texts

    @property
    def paid(self) -> str:
        """What they cost."""
        bought = self.report.purchase
        return "-" if bought is None else format_micro(bought.amount_micro, bought.currency)

    @cached_property
    def accuracy(self) -> Estimate | None:
        """Accuracy of the exported student on the target, else on the hold-out; `None` if it was not scored."""
        row = self.report.rows[-1]
        share = row.source_validation if self.report.target_domain is None else row.target
        return (
            None
            if share is None or not self.report.tested_images
            else accuracy_interval(share, self.report.tested_images)
        )

    @cached_property
    def right(self) -> dict[str, bool]:
        """Whether the student is right, by image."""
        return {one.path: one.is_right for one in self.own}

    def less(self, other: "ComparedRun") -> Estimate | None:
        """Return this accuracy less another run's; `None` where they were scored on other images."""
        mine, others = self.report, other.report
        names = ("dataset", "target_domain", "class_names", "tested_images")
        if any(getattr(mine, name) != getattr(others, name) for name in names):
            return None
        if self.accuracy is None or other.accuracy is None:
            return None
        if self.right and other.right and self.right.keys() != other.right.keys():
            return None
        return known_difference(self.accuracy, other.accuracy, self.right, other.right)


@dataclass(frozen=True)
class Comparison:
    """At least two runs; the others are compared with the first."""

    runs: tuple[ComparedRun, ...]

    def rows(self) -> list[list[str]]:
        """Return the cells of a table under `HEADER`."""
        return [self._row(run) for run in self.runs]

    def brief(self) -> list[list[str]]:
        """Return header and rows of the columns that fit a terminal."""
        kept = [HEADER.index(name) for name in _BRIEF]
        return [[row[place] for place in kept] for row in (HEADER, *self.rows())]

    def _row(self, run: ComparedRun) -> list[str]:
        last, accuracy = run.report.rows[-1], run.accuracy
        difference = None if run is self.runs[0] else run.less(self.runs[0])
        against = "other images" if difference is None else _against(difference).replace(" points", "")
        return [
            run.name,
            run.place,
            last.name,
            f"{run.queries:,}",
            run.paid,
            percent(last.source_validation),
            "-" if accuracy is None else percent(accuracy.value),
            "-" if accuracy is None else f"{100 * accuracy.low:.1f} to {100 * accuracy.high:.1f}",
            "" if run is self.runs[0] else against,
        ]

    def differing(self) -> list[list[str]]:
        """Return the settings in which the runs differ: its name, and its value in each run."""
        described = [
            {"student": run.report.student, "teacher": run.report.teacher, "seed": str(run.report.seed)}
            | dict(run.report.settings)
            for run in self.runs
        ]
        names = dict.fromkeys(name for one in described for name in one)
        rows = [[name, *(one.get(name, "-") for one in described)] for name in names]
        return [row for row in rows if len(set(row[1:])) > 1]

    def query_points(self) -> dict[str, list[QueryPoint]]:
        """Return accuracy by queries of each data set, target and student with runs of several numbers of them."""
        groups: dict[tuple[Any, ...], list[QueryPoint]] = {}
        for run in self.runs:
            report = run.report
            if run.accuracy is not None:
                key = (report.dataset, report.target_domain, report.tested_images, report.student, report.teacher)
                groups.setdefault(key, []).append(QueryPoint(run.queries, run.accuracy, run.name))
        return {
            f"{dataset}, tested on {target or 'its hold-out'}, {student}": found
            for (dataset, target, _, student, _), found in groups.items()
            if len({one.queries for one in found}) > 1
        }

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values; accuracies and differences are unrounded."""
        first, *_ = self.runs
        return {"runs": [_record(run, None if run is first else run.less(first)) for run in self.runs]}


def _record(run: ComparedRun, difference: Estimate | None) -> dict[str, Any]:
    last, accuracy = run.report.rows[-1], run.accuracy
    return {
        "run": run.name,
        "dataset": run.report.dataset,
        "target_domain": run.report.target_domain,
        "student": run.report.student,
        "exported": last.name,
        "seed": run.report.seed,
        "queries": run.queries,
        "amount_micro": None if run.report.purchase is None else run.report.purchase.amount_micro,
        "source_validation": last.source_validation,
        "accuracy": None if accuracy is None else accuracy.value,
        "accuracy_interval": None if accuracy is None else [accuracy.low, accuracy.high],
        "against_first": None if difference is None else difference.value,
        "against_first_interval": None if difference is None else [difference.low, difference.high],
    }


def _against(difference: Estimate) -> str:
    return f"{points(difference.value).replace('-', MINUS)} ({signed_range(difference.low, difference.high)})"


def comparison_page(comparison: Comparison) -> str:
    """Return a page of the runs."""
    scored = [(run.name, run.accuracy) for run in comparison.runs if run.accuracy is not None]
    drawn = [Dot(name, accuracy, "other" if place else "main") for place, (name, accuracy) in enumerate(scored)]
    curves = comparison.query_points()
    return render_page(
        "comparison.html",
        f"{counted(len(comparison.runs), 'run')} compared",
        runs=len(comparison.runs),
        verdict=_verdict(comparison),
        chart=dots("accuracies", "Accuracy of every run", drawn) if drawn else "",
        header=HEADER,
        rows=comparison.rows(),
        curves=[
            {
                "caption": caption,
                "chart": query_curve(f"queries{number}", caption, found),
                "rows": [[one.name, f"{one.queries:,}", percent(one.accuracy.value)] for one in found],
            }
            for number, (caption, found) in enumerate(curves.items())
        ],
        differing=comparison.differing(),
        names=[run.name for run in comparison.runs],
    )


def _verdict(comparison: Comparison) -> str:
    """Return which of the runs are better or worse than the first, as far as their images tell."""
    first, *others = comparison.runs
    lines = []
    for run in others:
        difference = run.less(first)
        if difference is None:
            lines.append(f"{run.name} was tested on other images than {first.name}.")
        elif difference.word == "undecided":
            lines.append(f"{run.name} against {first.name} is undecided: {_against(difference)}.")
        else:
            lines.append(f"{run.name} is {difference.word} than {first.name}: {_against(difference)}.")
    return " ".join(lines)
