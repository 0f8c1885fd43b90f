"""The report of a sweep: leave-one-domain-out over targets and seeds, and what it cost."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vl2v_client.core.errors import RunError
from vl2v_client.core.files import read_json
from vl2v_client.core.progress import format_micro
from vl2v_client.reports.pages import (
    MAX_REPORT_BYTES,
    SharedPurchase,
    asked,
    counted,
    percent,
    quoted,
    table,
    times_as_many,
    write_pages,
)


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean with its standard error, from the sample deviation; `None` for a single value."""

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

    Scores are on DomainBed's 80 % of each target, or on the whole of it.
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


@dataclass(frozen=True)
class SweepReport:
    """All that the report says.

    Attributes:
        dataset: Its folder's name.
        targets: Each was held out in turn.
        seeds: Seeds of the trainings; split and views are the same for all.
        views: Views of each training image, in words.
        outcomes: One for each target, seed and method.
        teacher_target_in: The zero-shot teacher on the 80 % of each target that DomainBed's tables use, if known.
        purchase: `None` if the teacher is local.
        queries: Queries that each method's students were trained with, by the method's name.
        published_queries: Queries of the published loop, for one seed of all targets.
    """

    dataset: str
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    teacher: str
    student: str
    views: str
    outcomes: tuple[Outcome, ...]
    teacher_target_in: Mapping[str, float]
    purchase: SharedPurchase | None
    queries: Mapping[str, int]
    published_queries: int

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values: every run, and the rows of the tables; accuracies are unrounded."""
        tables = {
            name: [asdict(row) for row in method_rows(self.outcomes, whole_target=whole)]
            for name, whole in (("target_in", False), ("whole_target", True))
        }
        return {"format": 1, **asdict(self), "tables": tables}

    def to_markdown(self) -> str:
        """Return the report as a page."""
        parts = [
            f"# {quoted(self.dataset)}: leave one domain out",
            self.protocol(),
            "## Accuracy on the target's 80 % that DomainBed's tables use",
            self.accuracy_table(whole_target=False),
            "## Accuracy on the whole target",
            self.accuracy_table(whole_target=True),
            "## What it cost",
            self.cost(),
        ]
        return "\n\n".join(parts) + "\n"

    def accuracy_table(self, *, whole_target: bool) -> str:
        """Return the methods' rows, and the teacher's where it was asked, as Markdown."""
        header, *lines = self.accuracies(whole_target=whole_target, name=quoted)
        return table(header, lines)

    def accuracies(self, *, whole_target: bool, name: Callable[[str], str] = str) -> list[list[str]]:
        """Return header and rows of a table; `name` is put on each name from outside."""
        header = ["", *map(name, self.targets), "mean", "worst domain", "in-domain", "queries"]
        lines, known = [], self.teacher_target_in
        if not whole_target and set(known) == set(self.targets):
            worst = min(known, key=lambda target: known[target])
            mean = sum(known.values()) / len(known)
            cells = [*(percent(known[target]) for target in self.targets), percent(mean)]
            lines.append(["zero-shot teacher", *cells, _worst(name(worst), known[worst]), "-", "-"])
        lines += [self._line(row, name) for row in method_rows(self.outcomes, whole_target=whole_target)]
        return [header, *lines]

    def brief(self) -> list[list[str]]:
        """Return what of the accuracies fits a terminal of 80 columns where there are few domains, in percent."""
        lines = self.accuracies(whole_target=False)
        shown = [[line[0], *(cell.replace(" %", "") for cell in line[1 : len(self.targets) + 2])] for line in lines]
        shown[0][0] = "percent"
        return shown

    def cost(self, name: Callable[[str], str] = quoted) -> str:
        """Return the one purchase in sentences, beside the published loop's bill."""
        runs, bought = len(self.seeds) * self.published_queries, self.purchase
        all_seeds = f", {runs:,} for all {len(self.seeds)}" if len(self.seeds) > 1 else ""
        published = (
            "The published loop asks the teacher about every image of every step: "
            f"{counted(self.published_queries, 'query')} for one seed of all targets{all_seeds}"
        )
        if bought is None:
            return f"The teacher is local: nothing was bought. {published}."
        money, queries = format_micro(bought.amount_micro, name(bought.currency)), bought.images + bought.texts
        return (
            f"All runs shared one purchase of {asked(bought)}, {money} in all; a run reads those of its source domains "
            f"alone. {published}{times_as_many(runs, queries)}."
        )

    def _line(self, row: MethodRow, name: Callable[[str], str]) -> list[str]:
        queries = self.queries.get(row.method, 0)
        return [
            row.method,
            *(_with_error(row.by_target[target]) for target in self.targets),
            _with_error(row.mean),
            _worst(name(row.worst), row.by_target[row.worst].mean),
            _with_error(row.in_domain),
            f"{queries:,}" if queries else "-",
        ]

    def protocol(self, name: Callable[[str], str] = quoted) -> str:
        """Return how it was measured, in sentences."""
        count = len(self.seeds)
        error = "± is the standard error over seeds" if count > 1 else "one seed says nothing of spread"
        return (
            f"Student: {name(self.student)}. Teacher: {name(self.teacher)}. "
            f"Views of each training image: {self.views}. "
            f"{count} seed{'s' if count > 1 else ''} ({', '.join(map(str, self.seeds))}) on one split; {error}. "
            "Each column is a domain that its runs never saw: training, selection and calibration read others alone."
        )


def write_sweep_report(folder: Path, report: SweepReport) -> None:
    """Write `report.md` and `report.json`.

    Raises:
        CacheError: The folder cannot be written.
    """
    write_pages(folder, report.to_markdown(), report.to_json())


def read_sweep_report(folder: Path) -> SweepReport:
    """Return the report that `write_sweep_report` left in a folder.

    Raises:
        RunError: There is none, or it is none that a sweep of this version writes.
    """
    path = folder / "report.json"
    try:
        report = TypeAdapter(SweepReport).validate_python(read_json(path, MAX_REPORT_BYTES))
        _check_figures(report)
    except (OSError, ValueError) as error:  # pydantic's errors are of the latter
        reason = str(error).partition("\n")[0]
        raise RunError(f"{path} cannot be read ({reason}): the same `vl2v-client sweep` writes it again") from error
    return report


def _check_figures(report: SweepReport) -> None:
    """Refuse figures that no sweep has; the file may be somebody else's."""
    shares = [share for one in report.outcomes for share in (one.in_domain, one.target_in, one.whole_target)]
    if not all(0 <= share <= 1 for share in (*shares, *report.teacher_target_in.values())):
        raise ValueError("an accuracy is no share")
    runs = Counter((one.method, one.target, one.seed) for one in report.outcomes)
    methods = {one.method for one in report.outcomes}
    if not runs or runs != Counter(product(methods, report.targets, report.seeds)):
        raise ValueError("its runs are not those of its methods, targets and seeds")


def _with_error(value: Spread) -> str:
    error = "" if value.standard_error is None else f" ± {100 * value.standard_error:.1f}"
    return f"{100 * value.mean:.1f}{error} %"


def _worst(target: str, accuracy: float) -> str:
    return f"{target}, {percent(accuracy)}"
