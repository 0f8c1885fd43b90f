"""The page of a run: what the report says, with charts, and the most confident mistakes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vl2v_client.core.progress import format_micro
from vl2v_client.evaluation.accuracy import ImagePrediction
from vl2v_client.evaluation.intervals import accuracy_interval
from vl2v_client.evaluation.mistakes import confident_mistakes, reliability
from vl2v_client.reports.charts import Dot, dots
from vl2v_client.reports.html_page import picture, render_page
from vl2v_client.reports.pages import Purchase, cost_text, counted, interval, percent
from vl2v_client.reports.report import FEWEST_FOR_CALIBRATION, RunReport
from vl2v_client.reports.run_charts import StageCurve, confusion_chart, loss_chart, reliability_chart, validation_chart
from vl2v_client.reports.verdict import RowVerdict, row_verdicts, sentence

MISTAKES_SHOWN = 24
_OFTEN = 8
_TABLE_CLASSES = 40


@dataclass(frozen=True)
class RunPage:
    """What a page shows; earlier runs have less.

    Attributes:
        report: The run's report.
        predictions: What rows of the report said of the images that they are scored on; perhaps of none.
        curves: Stages of the run's method, in order.
        pictures: JPEG files of mistakes, by their path below the data set.
    """

    report: RunReport
    predictions: Sequence[ImagePrediction] = ()
    curves: Sequence[StageCurve] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def own(self) -> list[ImagePrediction]:
        """What the exported student said."""
        return [one for one in self.predictions if one.classifier == self.report.rows[-1].name]

    def mistakes(self) -> tuple[ImagePrediction, ...]:
        """Return the mistakes that the page shows."""
        return confident_mistakes(self.own, MISTAKES_SHOWN)

    def to_html(self) -> str:
        """Return the page."""
        report = self.report
        verdicts = row_verdicts(report, self.predictions)
        headline, lead = _headline(report, verdicts)
        return render_page(
            "run.html",
            f"{report.dataset}: {report.rows[-1].name}",
            dataset=report.dataset,
            teacher=report.teacher,
            place=report.target_domain or "source validation",
            headline=headline,
            lead=lead,
            verdict=_verdict(verdicts),
            cost=_cost(report),
            domains=_domains(report),
            curves=[_stage(f"stage{number}", curve) for number, curve in enumerate(self.curves)],
            averaged=any(curve.averaged for curve in self.curves),
            reliability=_reliability(self.own),
            confusion=_confusion(report),
            mistakes=self._tiles(),
            accuracies=_accuracies(report),
            protocol=report.protocol(),
            settings=list(report.settings.items()),
        )

    def _tiles(self) -> dict[str, Any] | None:
        shown, wrong = self.mistakes(), sum(not one.is_right for one in self.own)
        if not shown:
            return None
        which = (
            f"The {len(shown)} most confident of {counted(wrong, 'mistake')}" if wrong > len(shown) else "Every mistake"
        )
        tiles = [
            {
                "path": one.path,
                "label": one.label,
                "predicted": one.predicted,
                "confidence": percent(one.probability),
                "picture": picture(self.pictures[one.path]) if one.path in self.pictures else "",
            }
            for one in shown
        ]
        return {"tiles": tiles, "text": f"{which}, by falling confidence. Some labels may be wrong instead."}


def _headline(report: RunReport, verdicts: Sequence[RowVerdict]) -> tuple[str, str]:
    """Return the verdict in a line, and in a few sentences."""
    exported = verdicts[-1]
    said = sentence(verdicts, report.target_domain or "source validation", report.tested_images)
    said += f" {''.join(report.choice())}" if report.probed else ""
    if report.target_domain is None:
        like = "No domain was held out: every accuracy is on images like those of training. Expect less on others."
        return "Generalisation was not measured", f"{like} {said}"
    if exported.accuracy is None:
        return f"{exported.name} was not evaluated on {report.target_domain}", ""
    reached = f"{exported.name} reaches {percent(exported.accuracy.value)} on {report.target_domain}"
    return reached, f"A domain that it never saw. {said}"


def _verdict(verdicts: Sequence[RowVerdict]) -> dict[str, Any] | None:
    """Return every row's accuracy as a chart, and the differences as a table."""
    if verdicts[-1].accuracy is None:
        return None
    shown = [Dot(one.name, one.accuracy, one.kind) for one in verdicts if one.accuracy is not None]
    compared = [one for one in verdicts if one.difference is not None]
    return {
        "chart": dots("verdict", "Accuracy of every row", shown),
        "header": ["against", "points", "95 % interval", "verdict"],
        "rows": [[one.name, one.points, one.interval, one.word] for one in compared],
        "note": "95 % intervals, of the images alone; a difference is taken image by image where the predictions of "
        "both are known. Another seed of the training varies as well.",
    }


def _cost(report: RunReport) -> dict[str, Any]:
    facts: list[tuple[str, str]] = []
    bought = report.purchase
    if isinstance(bought, Purchase):
        facts = [
            ("queries that it learnt from", f"{bought.images + bought.texts:,}"),
            ("paid for them", format_micro(bought.amount_micro, bought.currency)),
        ]
        if bought.other_queries + bought.test_images:
            facts.append(("queries for other rows alone", f"{bought.other_queries + bought.test_images:,}"))
    return {"facts": facts, "text": cost_text(bought, report.local)}


def _domains(report: RunReport) -> dict[str, Any] | None:
    if not report.by_domain:
        return None
    shares = [accuracy_interval(row.accuracy, max(1, row.images)) for row in report.by_domain]
    places = {True: "seen, hold-out", False: "never seen"}
    pairs = list(zip(report.by_domain, shares, strict=True))
    drawn = [Dot(row.domain, share, "other" if row.seen else "main") for row, share in pairs]
    return {
        "chart": dots("domains", f"Accuracy of {report.rows[-1].name} by domain", drawn),
        "caption": "Seen domains on images that it was not trained on; lines are 95 % intervals.",
        "header": ["domain", "role", "images", "accuracy", "95 % interval"],
        "rows": [
            [row.domain, places[row.seen], f"{row.images:,}", percent(row.accuracy), interval(share)]
            for row, share in pairs
        ],
    }


def _stage(name: str, curve: StageCurve) -> dict[str, Any]:
    last, best = curve.points[-1], max(curve.evaluations, key=lambda one: one.accuracy)
    rows = []
    for one in curve.evaluations:
        point = min(curve.points, key=lambda other, step=one.step: abs(other.step - step))  # type: ignore[misc]
        rows.append(
            [f"{one.step:,}", f"{point.loss:.4f}", f"{point.gap:.4f}", percent(one.accuracy), f"{one.loss:.4f}"]
        )
    return {
        "name": curve.name,
        "loss": loss_chart(f"{name}loss", curve),
        "loss_text": f"{last.gap:.4f} above its floor at step {last.step:,}.",
        "validation": validation_chart(f"{name}validation", curve),
        "validation_text": f"Highest {percent(best.accuracy)}, at step {best.step:,}.",
        "header": ["step", "loss", "gap to floor", "accuracy", "validation loss"],
        "rows": rows,
    }


def _reliability(own: Sequence[ImagePrediction]) -> dict[str, Any] | None:
    if not own:
        return None
    bins = reliability(own)
    sure = sum(one.images * one.confidence for one in bins) / len(own)
    right = sum(one.images * one.accuracy for one in bins) / len(own)
    few = "" if len(own) >= FEWEST_FOR_CALIBRATION else " Few images: the dots say little."
    rows = [
        [
            f"{100 * one.low:.0f} to {100 * one.high:.0f} %",
            f"{one.images:,}",
            percent(one.confidence),
            percent(one.accuracy),
        ]
        for one in bins
    ]
    return {
        "chart": reliability_chart("reliability", bins),
        "text": f"Mean confidence {percent(sure)}, right {percent(right)}, at the temperature fitted on source "
        f"validation. On the dashed line confidence equals accuracy.{few}",
        "header": ["confidence", "images", "mean confidence", "right"],
        "rows": rows,
    }


def _confusion(report: RunReport) -> dict[str, Any] | None:
    counts, names = report.confusion, report.class_names
    if counts is None or not names:
        return None
    often = sorted(
        (
            (count, sum(row), names[label], names[said])
            for label, row in enumerate(counts)
            for said, count in enumerate(row)
            if count and label != said
        ),
        key=lambda one: (-one[0], one[2], one[3]),
    )
    rows = [
        [name, *(str(count or "\u00b7") for count in row), percent(row[label] / sum(row)) if any(row) else "-"]
        for label, (name, row) in enumerate(zip(names, counts, strict=True))
    ]
    fits = len(names) <= _TABLE_CLASSES
    return {
        "chart": confusion_chart("confusion", names, counts),
        "text": "Rows are labels, columns predictions."
        if fits
        else f"{len(names):,} classes: the most frequent mistakes.",
        "often": [
            [f"{label}, {said}", f"{count:,}", percent(count / total)] for count, total, label, said in often[:_OFTEN]
        ],
        "header": ["label", *names, "recall"],
        "rows": rows if fits else [],
    }


def _accuracies(report: RunReport) -> dict[str, Any]:
    header, *rows = report.accuracies()
    return {
        "header": ["row", *header[1:]],
        "rows": rows,
        "notes": [f"{row.name}: {row.note}" for row in report.rows if row.note],
    }
