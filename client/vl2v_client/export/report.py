"""The report of a run, for people (Markdown) and programs (JSON): accuracies, their cost, how they were measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vl2v_client.core.errors import CacheError, RunError
from vl2v_client.core.files import read_json
from vl2v_client.export.cost import LocalAnswers, Purchase, cost_text
from vl2v_client.export.tables import percent, quoted, table
from vl2v_contract.texts import printable

_FORMAT = 1
_MAX_BYTES = 64 * 2**20
"""A confusion of 2,000 classes takes 40 MB."""
_LARGEST_CONFUSION = 12


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
        domain: Its name.
        seen: Whether the student was trained on other images of it: in-domain, on the hold-out.
        images: Number of images scored.
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
        teacher: The vendor's model.
        student: Architecture and input, in words.
        seed: Seed of the run.
        settings: Name to value, as text.
        confusion: Confusion matrix `[C, C]` of the exported student on the target, else the hold-out; row = label.
        student_folder: Folder of the export.
        by_domain: The exported student on each domain.
        local: What a local teacher answered; `None` if a vendor did.
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

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values; accuracies are unrounded."""
        return {"format": _FORMAT, "generalisation_measured": self.target_domain is not None, **asdict(self)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> RunReport:
        """Return the report of which `to_json` made `record`.

        Raises:
            RunError: It is no report, or one of another version.
        """
        values = dict(record) if isinstance(record, dict) else {}
        if values.pop("format", None) != _FORMAT:
            raise RunError(f"the report is not of format {_FORMAT}: use the version of vl2v that wrote it")
        try:
            return _REPORT.validate_python(values)
        except ValidationError as error:
            entry = ".".join(map(str, error.errors(include_input=False)[0]["loc"]))
            raise RunError(
                f"the report is incomplete (its {entry!r} is not right): run the distillation again"
            ) from error

    def summary(self) -> str:
        """Return the beginning of the page, for a terminal: accuracies and cost."""
        return self._quoted()._summary()

    def to_markdown(self) -> str:
        """Return the report as a page; no name in it is taken for markup."""
        return self._quoted()._page()

    def _quoted(self) -> RunReport:
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
            student_folder=printable(self.student_folder).replace("`", "'"),
            by_domain=tuple(replace(row, domain=quoted(row.domain)) for row in self.by_domain),
        )

    def _summary(self) -> str:
        accuracies = _brief_table(self.rows, self.target_domain)
        return "\n\n".join([f"# {self._title()}", self._headline(), accuracies, "## What it cost", self._cost()])

    def _page(self) -> str:
        accuracies = _accuracy_table(self.rows, measured=self.target_domain is not None)
        parts = [f"# {self._title()}", self._headline(), accuracies, "## What it cost", self._cost()]
        if self.by_domain:
            parts += [f"## {self.rows[-1].name} by domain", _by_domain(self.by_domain)]
        parts += ["## How it was measured", self._protocol()]
        if self.confusion is not None and len(self.class_names) <= _LARGEST_CONFUSION:
            where = self.target_domain or "source validation"
            parts += [f"## Confusion of {self.rows[-1].name} on {where}", _confusion(self.class_names, self.confusion)]
        parts += ["## Settings", _settings(self.settings)]
        return "\n\n".join(parts) + "\n"

    def _title(self) -> str:
        if self.target_domain is None:
            return f"{self.dataset}: a student of {self.teacher}"
        return f"{self.dataset}: a student of {self.teacher}, tested on unseen {self.target_domain}"

    def _cost(self) -> str:
        return cost_text(self.purchase, self.local)

    def _headline(self) -> str:
        if self.target_domain is None:
            return (
                "**Generalisation was not measured**: no domain was held out, so every accuracy below is on images "
                "like those of training. Expect less on images of another style."
            )
        last = self.rows[-1]
        others = [row for row in self.rows[:-1] if row.target is not None]
        if last.target is None:
            return f"**{last.name} was not evaluated on {self.target_domain}.**"
        gaps = [f"{100 * (last.target - (row.target or 0)):+.1f} points against {row.name}" for row in others]
        against = f" ({', '.join(gaps)})" if gaps else ""
        reached = f"**{last.name} reaches {percent(last.target)} on {self.target_domain}**"
        return f"{reached}, a domain that it never saw{against}."

    def _protocol(self) -> str:
        counts = self.counts
        lines = [
            f"- Student: {self.student}. Teacher: {self.teacher}. Seed {self.seed}: one run says nothing of spread.",
            f"- Trained on {counts.get('train', 0):,} images of {', '.join(self.source_domains)}.",
            f"- Selected, averaged and calibrated on {counts.get('validation', 0):,} other images of the same domains.",
        ]
        if self.target_domain is not None:
            lines.append(
                f"- Tested on all {counts.get('target', 0):,} images of {self.target_domain}, which training, "
                "selection and calibration never read. The column *target 80 %* leaves out the hold-out that "
                "DomainBed's tables leave out."
            )
        if self.student_folder:
            lines.append(f"- The student in `{self.student_folder}` is that of the last row, read back and compared.")
        return "\n".join(lines)


_REPORT = TypeAdapter(RunReport)


def write_report(folder: Path, report: RunReport) -> None:
    """Write `report.md` and `report.json`.

    Raises:
        CacheError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "report.md").write_text(report.to_markdown(), encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise CacheError(f"{folder} cannot be written ({error.strerror}): make room, then run again") from error


def read_report(folder: Path) -> RunReport:
    """Return the report that `write_report` left in a folder.

    Raises:
        RunError: There is none, or it cannot be read.
    """
    path = folder / "report.json"
    try:
        record = read_json(path, _MAX_BYTES)
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}): finish the run first") from error
    return RunReport.from_json(record)


def _brief_table(rows: Sequence[ReportRow], target_domain: str | None) -> str:
    """Return the columns that fit a terminal."""
    header = ["", "source validation", *([f"unseen {target_domain}"] if target_domain else [])]
    lines = [
        [row.name, percent(row.source_validation), *([percent(row.target)] if target_domain else [])] for row in rows
    ]
    return table(header, lines)


def _accuracy_table(rows: Sequence[ReportRow], *, measured: bool) -> str:
    target = ["target", "target 80 %"] if measured else []
    header = ["", "source validation", *target, "NLL", "calibration error", "uncalibrated", ""]
    lines = []
    for row in rows:
        on_target = [percent(row.target), percent(row.target_in)] if measured else []
        nll = "-" if row.nll is None else f"{row.nll:.3f}"
        errors = percent(row.calibration_error), percent(row.uncalibrated_error)
        lines.append([row.name, percent(row.source_validation), *on_target, nll, *errors, row.note])
    if not any(row.note for row in rows):
        header.pop()
        lines = [line[:-1] for line in lines]
    return table(header, lines)


def _by_domain(rows: Sequence[DomainRow]) -> str:
    lines = [[row.domain, _place(row.seen), f"{row.images:,}", percent(row.accuracy)] for row in rows]
    for seen in (True, False):
        accuracies = [row.accuracy for row in rows if row.seen == seen]
        if accuracies:
            images = sum(row.images for row in rows if row.seen == seen)
            lines.append(["*mean*", _place(seen), f"{images:,}", percent(sum(accuracies) / len(accuracies))])
    worst = min(rows, key=lambda row: row.accuracy)
    lines.append([f"*worst: {worst.domain}*", _place(worst.seen), f"{worst.images:,}", percent(worst.accuracy)])
    return table(["domain", "", "images", "accuracy"], lines)


def _place(seen: bool) -> str:
    return "in-domain, hold-out" if seen else "out-of-domain"


def _confusion(class_names: Sequence[str], confusion: Sequence[Sequence[int]]) -> str:
    lines: list[list[str]] = []
    for name, counts in zip(class_names, confusion, strict=True):
        total = sum(counts)
        recall = f"{counts[len(lines)] / total:.0%}" if total else "-"
        lines.append([name, *(str(count) if count else "." for count in counts), recall])
    return "Rows are labels, columns predictions.\n\n" + table(["", *class_names, "recall"], lines)


def _settings(settings: Mapping[str, str]) -> str:
    return table(["setting", "value"], [[name, value] for name, value in settings.items()])
