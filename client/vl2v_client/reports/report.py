"""The report of a run, for people (Markdown) and programs (JSON): accuracies, their cost, how they were measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vl2v_client.core.errors import RunError
from vl2v_client.core.files import read_json
from vl2v_client.core.progress import StageEstimate
from vl2v_client.evaluation.intervals import accuracy_interval
from vl2v_client.reports.last_stage import LastStage
from vl2v_client.reports.pages import (
    MAX_REPORT_BYTES,
    LocalAnswers,
    Purchase,
    confusion_table,
    cost_text,
    counted,
    interval,
    percent,
    points,
    quoted,
    table,
    write_pages,
)

_FORMAT = 1
CHANCE, MAJORITY, ZERO_SHOT, RIDGE_PROBE = "chance", "majority class", "zero-shot teacher", "ridge probe"
_PLACES = {True: "in-domain, hold-out", False: "out-of-domain"}
FEW_IMAGES = 30
"""Of fewer test images counts are said: one image more or less is several points."""
FEWEST_FOR_CALIBRATION = 100
"""Over 15 bins, the calibration error of fewer images is mostly that of chance."""


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One classifier.

    Attributes:
        name: Name, such as `VL2V-ADiP`.
        source_validation: Mean of the source domains' accuracies on their hold-out, 0 to 1.
        target: Accuracy on the whole target domain; `None` if nothing was held out.
        target_in: Accuracy on the 80 % of the target that DomainBed's tables use.
        nll: Negative log-likelihood on the target, else on source validation, in nats, at the fitted temperature.
        calibration_error: Calibration error on the same, at the fitted temperature.
        note: A short remark, such as the learning rate that was chosen.
        uncalibrated_error: The calibration error at a temperature of 1.
    """

    name: str
    source_validation: float | None
    target: float | None = None
    target_in: float | None = None
    nll: float | None = None
    calibration_error: float | None = None
    note: str = ""
    uncalibrated_error: float | None = None


@dataclass(frozen=True, slots=True)
class DomainRow:
    """The exported student on one domain.

    Attributes:
        seen: Whether the student was trained on other images of it: in-domain, on the hold-out.
        accuracy: 0 to 1.
    """

    domain: str
    seen: bool
    images: int
    accuracy: float


@dataclass(frozen=True, slots=True)
class RunReport:
    """Everything that the report says.

    Attributes:
        dataset: Its folder's name.
        class_names: Names of the classes in the order of `confusion`.
        source_domains: Trained and selected on.
        target_domain: Domain held out; `None` if nothing was, and generalisation was not measured.
        counts: Images by use: `train`, `validation`, `target`.
        rows: The classifiers, the one that was exported last.
        purchase: `None` if nothing was bought.
        confusion: Confusion matrix `[C, C]` of the exported student on the target, else the hold-out; row = label.
        local: What a local teacher answered; `None` if a vendor did.
        probed: Whether the last two rows are a labels-only probe and the run's method, the better on source validation
            last; the method, if they are equal.
        last_stage: `None` in reports of earlier versions, and where no stage of the method was trained.
        estimate: What the backbone's training was said to take, by a trial; `None` if there was none.
        trained_in: Name of the folder with the metrics of the run's method; empty in reports of earlier versions.
    """

    dataset: str
    class_names: tuple[str, ...]
    source_domains: tuple[str, ...]
    target_domain: str | None
    counts: Mapping[str, int]
    rows: tuple[ReportRow, ...]
    purchase: Purchase | None
    teacher: str
    student: str
    seed: int
    settings: Mapping[str, str]
    confusion: Sequence[Sequence[int]] | None = None
    student_folder: str = ""
    by_domain: tuple[DomainRow, ...] = ()
    local: LocalAnswers | None = None
    probed: bool = False
    last_stage: LastStage | None = None
    trained_in: str = ""
    estimate: StageEstimate | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; accuracies are unrounded."""
        measured, exported = self.target_domain is not None, self.rows[-1].name
        return {"format": _FORMAT, "generalisation_measured": measured, "exported": exported, **asdict(self)}

    @property
    def tested_images(self) -> int:
        """Number of images that the rows are scored on: those of the target, else those of source validation."""
        return self.counts.get("validation" if self.target_domain is None else "target", 0)

    def summary(self) -> str:
        """Return the beginning of the page, for a terminal: accuracies and cost."""
        report = self._quoted()
        return "\n\n".join(report._beginning(report._accuracy_table(brief=True)))

    def to_markdown(self) -> str:
        """Return the report as a page; no name in it is taken for markup."""
        report = self._quoted()
        name, parts = report.rows[-1].name, report._beginning(report._accuracy_table())
        if report.by_domain:
            parts += [f"## {name} by domain", _by_domain(report.by_domain)]
        parts += ["## How it was measured", "\n".join(f"- {line}" for line in report.protocol())]
        if report.confusion is not None and len(report.class_names) <= 12:
            where = report.target_domain or "source validation"
            parts += [f"## Confusion of {name} on {where}", confusion_table(report.class_names, report.confusion)]
        parts += ["## Settings", table(["setting", "value"], list(report.settings.items()))]
        return "\n\n".join(parts) + "\n"

    def accuracies(self, *, brief: bool = False) -> list[list[str]]:
        """Return header and rows of the table of the classifiers; `brief` has the columns that fit a terminal."""
        rows, is_tested = self.rows, self.target_domain is not None
        is_calibrated = not brief and self.tested_images >= FEWEST_FOR_CALIBRATION
        columns = (  # whether it is shown, its header and its cells
            (True, "", [row.name for row in rows]),
            (True, "source validation", [percent(row.source_validation) for row in rows]),
            (is_tested, f"unseen {self.target_domain}" if brief else "target", [percent(row.target) for row in rows]),
            (is_tested and not brief, "target 80 %", [percent(row.target_in) for row in rows]),
            (not brief, "NLL", ["-" if row.nll is None else f"{row.nll:.3f}" for row in rows]),
            (is_calibrated, "calibration error", [percent(row.calibration_error) for row in rows]),
            (is_calibrated, "uncalibrated", [percent(row.uncalibrated_error) for row in rows]),
        )
        lines = zip(*([header, *cells] for is_shown, header, cells in columns if is_shown), strict=True)
        return [list(line) for line in lines]

    def _accuracy_table(self, *, brief: bool = False) -> str:
        header, *lines = self.accuracies(brief=brief)
        if not brief and any(row.note for row in self.rows):
            header, lines = [*header, ""], [[*line, row.note] for line, row in zip(lines, self.rows, strict=True)]
        return table(header, lines)

    def _repr_html_(self) -> str:
        from vl2v_client.reports.notebook_report import report_html  # which reads this class

        return report_html(self)

    def _quoted(self) -> "RunReport":
        """Return the report with every name from outside quoted for Markdown."""
        return replace(
            self,
            dataset=quoted(self.dataset),
            class_names=tuple(map(quoted, self.class_names)),
            source_domains=tuple(map(quoted, self.source_domains)),
            target_domain=None if self.target_domain is None else quoted(self.target_domain),
            rows=tuple(replace(row, name=quoted(row.name), note=quoted(row.note)) for row in self.rows),
            purchase=self.purchase and replace(self.purchase, currency=quoted(self.purchase.currency)),
            teacher=quoted(self.teacher),
            student=quoted(self.student),
            settings={quoted(name): quoted(value) for name, value in self.settings.items()},
            student_folder=quoted(self.student_folder),
            by_domain=tuple(replace(row, domain=quoted(row.domain)) for row in self.by_domain),
            last_stage=self.last_stage and self.last_stage.quoted(),
        )

    def _beginning(self, accuracies: str) -> list[str]:
        tested = "" if self.target_domain is None else f", tested on unseen {self.target_domain}"
        title = f"# {self.dataset}: a student of {self.teacher}{tested}"
        headline = f"{self._headline()} **{self.choice()[0]}**{self.choice()[1]}" if self.probed else self._headline()
        return [title, headline, accuracies, "## What it cost", cost_text(self.purchase, self.local)]

    def choice(self) -> tuple[str, str]:
        """Return which of a method and the probe is exported, and why; of a run that has both alone."""
        other, exported = self.rows[-2:]
        figures = " and ".join(f"{row.name} has {percent(row.source_validation)}" for row in (exported, other))
        why = f". On source validation, {figures}."
        if exported.name == RIDGE_PROBE:
            why += " That is on the domains that both were trained on, and says little of another style: the same"
            why += f" run with the option probe off exports {other.name}, and trains and buys nothing again."
        return f"Exported: {exported.name}", why

    def _headline(self) -> str:
        if self.target_domain is None:
            return (
                "**Generalisation was not measured**: no domain was held out, so every accuracy below is on images "
                "like those of training. Expect less on images of another style."
            )
        last = self.rows[-1]
        if last.target is None:
            return f"**{last.name} was not evaluated on {self.target_domain}.**"
        others = [(row.name, row.target) for row in self.rows[:-1] if row.name not in (CHANCE, MAJORITY)]
        if 0 < self.tested_images < FEW_IMAGES:
            gaps = [f"{name}: {round(share * self.tested_images)}" for name, share in others if share is not None]
            reached = f"{round(last.target * self.tested_images)} of {counted(self.tested_images, 'image')} right"
        else:
            gaps = [f"{points(last.target - share)} against {name}" for name, share in others if share is not None]
            gaps += ["intervals are in report.html"] if gaps else []
            reached = percent(last.target)
        against = f" ({', '.join(gaps)})" if gaps else ""
        return f"**{last.name} reaches {reached} on {self.target_domain}**, a domain that it never saw{against}."

    def protocol(self) -> list[str]:
        """Return sentences about how it was measured."""
        counts, exported = self.counts, self.rows[-1]
        same = "domains" if len(self.source_domains) > 1 else "domain"
        lines = [
            f"Student: {self.student}. Teacher: {self.teacher}. Seed {self.seed}: one run says nothing of spread.",
            f"Trained on {counted(counts.get('train', 0), 'image')} of {', '.join(self.source_domains)}.",
            f"Selected, averaged and calibrated on {counted(counts.get('validation', 0), 'other image')} "
            f"of the same {same}.",
        ]
        if self.target_domain is not None:
            lines.append(
                f"Tested on all {counts.get('target', 0):,} images of {self.target_domain}, which training, selection "
                "and calibration never read. The column target 80 % leaves out the hold-out that DomainBed's tables "
                "leave out."
            )
        if exported.target is not None and self.tested_images:
            share = accuracy_interval(exported.target, self.tested_images)
            lines.append(
                f"95 % interval of {exported.name} on these images: {interval(share)}. It "
                "is of the images alone: another seed varies as well."
            )
        if self.last_stage is not None:
            lines.append(self.last_stage.sentence())
        if self.estimate is not None:
            lines.append(f"Estimate before it began: {self.estimate}")
        if self.student_folder:
            lines.append(f"The student in {self.student_folder}/ is that of the last row, read back and compared.")
        return lines


def write_report(folder: Path, report: RunReport) -> None:
    """Write `report.md` and `report.json`.

    Raises:
        CacheError: The folder cannot be written.
    """
    write_pages(folder, report.to_markdown(), report.to_json())


def read_report(folder: Path) -> RunReport:
    """Return the report that `write_report` left in a folder.

    Raises:
        RunError: There is none, it cannot be read, is no report, or is one of another version.
    """
    path = folder / "report.json"
    try:
        record = read_json(path, MAX_REPORT_BYTES)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RunError(f"{path} cannot be read ({reason}): finish the run first") from error
    if not isinstance(record, dict) or record.get("format") != _FORMAT:
        raise RunError(f"the report is not of format {_FORMAT}: use the version of vl2v that wrote it")
    try:
        return TypeAdapter(RunReport).validate_python(record)
    except ValidationError as error:
        entry = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise RunError(f"the report is incomplete (its {entry!r} is not right): run the distillation again") from error


def _by_domain(rows: Sequence[DomainRow]) -> str:
    lines = [[row.domain, _PLACES[row.seen], f"{row.images:,}", percent(row.accuracy)] for row in rows]
    for seen in (True, False):
        accuracies = [row.accuracy for row in rows if row.seen == seen]
        if len(accuracies) > 1:  # the mean of one domain is its own row
            images = sum(row.images for row in rows if row.seen == seen)
            lines.append(["*mean*", _PLACES[seen], f"{images:,}", percent(sum(accuracies) / len(accuracies))])
    worst = min(rows, key=lambda row: row.accuracy)
    if any(row.accuracy > worst.accuracy for row in rows):
        lines.append([f"*worst: {worst.domain}*", _PLACES[worst.seen], f"{worst.images:,}", percent(worst.accuracy)])
    return table(["domain", "", "images", "accuracy"], lines)
