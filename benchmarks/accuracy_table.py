"""The statistics of `accuracy_per_query.py`: means over seeds, differences with intervals, and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import mean

from accuracy_arms import (
    ADIP_1,
    ADIP_4,
    BESIDE_TEACHER,
    DEFAULT_4,
    ERM,
    ERM_OF_DEFAULT,
    ONLINE,
    QUARTER,
    TEACHER,
    TEXT_ONLY,
)
from accuracy_runs import Outcome
from intervals import DRAWS, FEWEST_SEEDS, Difference, difference
from result import Goal

from vl2v_client.reports.sweep_report import spread

SMALLEST_GAP = 5.0
"""Points between ERM and its teacher from which a target counts for the share of the gap that is closed."""

TOO_FEW_PAIRS = 3
"""So many pairs of target and seed, or fewer, decide nothing."""


def rows_of(
    outcomes: Sequence[Outcome], names: Sequence[str], reference: str = ONLINE, *, shared_pictures: bool
) -> list[dict[str, object]]:
    """A row per name with the accuracy on each unseen domain in percent, mean and standard error over seeds.

    Args:
        outcomes: of all rows.
        names: of the rows, in order.
        reference: the row that, besides ERM, all are compared with.
        shared_pictures: all seeds of a target are tested on the same pictures.
    """
    targets = list(dict.fromkeys(outcome.target for outcome in outcomes))
    shown = [name for name in names if any(outcome.row == name for outcome in outcomes)]
    return [_row(name, outcomes, targets, reference, shared_pictures) for name in shown]


def notes_of(outcomes: Sequence[Outcome], *, shared_pictures: bool) -> list[str]:
    """How the table's figures are to be read, for its heading and its file."""
    lines = [
        "Accuracy in percent on the whole unseen domain: mean ± standard error over seeds.",
        f"Differences in points, with a 95 % interval from a bootstrap of {DRAWS:,} draws over the seeds within each "
        "target, widened by the root of S / (S - 1) for S seeds; the targets are fixed and count alike. Three seeds "
        f"make it rather too narrow, fewer than {FEWEST_SEEDS} make none.",
    ]
    if not shared_pictures:
        lines.append("Each seed draws its own pictures, so the spread over seeds has the error of the pictures in it.")
    elif any(outcome.right for outcome in outcomes):
        lines.append("Test pictures are drawn too, the same for both rows, where both have their predictions recorded.")
    if shared_pictures and not all(outcome.right for outcome in outcomes):
        lines.append(
            "Without predictions in the record: test pictures by their binomial error, taken as independent between "
            "rows, which overstates the error of a paired difference."
        )
    return [*lines, f"{TOO_FEW_PAIRS} pairs of target and seed, or fewer, decide nothing: such a goal is undecided."]


def goals_of(outcomes: Sequence[Outcome], *, shared_pictures: bool) -> list[Goal]:
    """What the table has to show; goals whose rows are missing are left out."""
    wanted = [
        ("K=1 below online", ONLINE, ADIP_1, "<= 1.0", 1.0),
        ("K=4 below online", ONLINE, ADIP_4, "<= 0.5", 0.5),
        ("25 % of the queries below K=1", ADIP_1, QUARTER, "<= 1.0", 1.0),
        ("K=1 above text only", ADIP_1, TEXT_ONLY, "> 0", 0.0),
        ("K=4 above text only", ADIP_4, TEXT_ONLY, "> 0", 0.0),
        ("VL2V-ADiP above ERM", ADIP_4, ERM, "> 0", 0.0),
        ("default above ERM", DEFAULT_4, ERM, ">= 3.0", 3.0),
        ("default above ERM on its own views", DEFAULT_4, ERM_OF_DEFAULT, "> 0", 0.0),
        ("default above VL2V-ADiP at equal queries", DEFAULT_4, ADIP_4, ">= 1.0", 1.0),
    ]
    found = []
    for name, high, low, words, bound in wanted:
        measured = difference(outcomes, high, low, shared_pictures=shared_pictures)
        if measured is not None:
            found.append(_goal(name, measured, words, bound, at_most=words.startswith("<")))
    return found


def best_on_sources(outcomes: Iterable[Outcome], rows: Sequence[str], name: str) -> list[Outcome]:
    """Under one name, for each target and seed the row that is best on source validation; the target is not asked.

    Where one of the rows has no outcome, nothing is chosen.
    """
    places: dict[tuple[str, int], list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.row in rows:
            places.setdefault((outcome.target, outcome.seed), []).append(outcome)
    whole = [found for found in places.values() if len(found) == len(rows)]
    best = [max(found, key=lambda one: one.in_domain or 0.0) for found in whole]
    return [replace(one, row=name, note=one.row) for one in best]


def gap_goals(outcomes: Sequence[Outcome], rows: Sequence[tuple[str, float]]) -> list[Goal]:
    """How much of the gap between ERM and the teacher each row closes: a goal for each row and its share."""
    found = []
    for row, wanted in rows:
        closed, pairs = gap_closed(outcomes, row)
        if pairs:
            verdict = "met" if closed >= wanted else "missed"
            verdict = verdict if sum(pairs.values()) > TOO_FEW_PAIRS else "undecided"
            words = f"{100 * closed:.0f} %, on {', '.join(pairs)}: {verdict}"
            found.append(Goal(f"gap closed by {row}", words, f">= {100 * wanted:.0f} %", verdict == "met"))
    return found


def gap_closed(outcomes: Sequence[Outcome], row: str) -> tuple[float, dict[str, int]]:
    """The sum of (row - ERM) over that of (teacher - ERM), over targets whose gap is large enough; and their seeds.

    Only targets and seeds that all three have count.
    """
    at = {(one.row, one.target, one.seed): one.accuracy for one in outcomes}
    gains, gaps, pairs = 0.0, 0.0, dict[str, int]()
    for target in dict.fromkeys(one.target for one in outcomes):
        seeds = [seed for name, place, seed in at if (name, place) == (row, target)]
        whole = [seed for seed in seeds if {(ERM, target, seed), (TEACHER, target, seed)} <= at.keys()]
        if not whole:
            continue
        erm, teacher, mine = (mean(at[name, target, seed] for seed in whole) for name in (ERM, TEACHER, row))
        if 100 * (teacher - erm) >= SMALLEST_GAP:
            gains, gaps = gains + mine - erm, gaps + teacher - erm
            pairs[target] = len(whole)
    return (gains / gaps if gaps else 0.0), pairs


def _goal(name: str, found: Difference, words: str, bound: float, *, at_most: bool) -> Goal:
    verdict = _verdict(found, bound, at_most=at_most)
    pairs = f"{found.pairs} pair{'s' if found.pairs > 1 else ''}"
    return Goal(f"{name}, points", f"{_in_words(found, 2)}, {pairs}: {verdict}", words, verdict == "met")


def _verdict(found: Difference, bound: float, *, at_most: bool) -> str:
    """Decided only if the whole interval lies on one side of the bound, and enough pairs stand behind it."""
    if found.pairs <= TOO_FEW_PAIRS or found.low is None or found.high is None:
        return "undecided"
    below, above = found.high < bound, found.low > bound
    if not below and not above:
        return "undecided"
    return "met" if below == at_most else "missed"


def _row(
    name: str, outcomes: Sequence[Outcome], targets: Sequence[str], reference: str, shared_pictures: bool
) -> dict[str, object]:
    def over(other: str) -> str:
        found = None if other == name else difference(outcomes, name, other, shared_pictures=shared_pictures)
        return "" if found is None else _in_words(found, 1)

    asked_to_test = (TEACHER, *BESIDE_TEACHER)
    mine = [outcome for outcome in outcomes if outcome.row == name]
    in_domain = [outcome.in_domain for outcome in mine if outcome.in_domain is not None]
    errors = [outcome.calibration_error for outcome in mine if outcome.calibration_error is not None]
    return {
        "": name,
        **{
            target: _spread([100 * outcome.accuracy for outcome in mine if outcome.target == target])
            for target in targets
        },
        "all": _over_targets(mine, targets),
        "source validation": round(100 * mean(in_domain), 1) if in_domain else "",
        "calibration error": round(mean(errors), 3) if errors else "",
        "queries": _queries(name, mine),
        "price, micro": round(mean(outcome.amount_micro for outcome in mine)) if name not in asked_to_test else "",
        "over ERM": over(ERM),
        f"over {reference.rpartition(', ')[2]}": over(reference),
    }


def _queries(name: str, mine: Sequence[Outcome]) -> int | str:
    bought = round(mean(outcome.queries for outcome in mine))
    if name == TEACHER:
        return "1 a picture"
    return f"{bought:,}, and 1 a picture" if name in BESIDE_TEACHER else bought


def _over_targets(mine: Sequence[Outcome], targets: Sequence[str]) -> str:
    """The mean over all targets and its standard error over seeds; nothing for a row that leaves out a target."""
    by_seed = {
        seed: [100 * outcome.accuracy for outcome in mine if outcome.seed == seed]
        for seed in sorted({outcome.seed for outcome in mine})
    }
    if any(len(values) < len(targets) for values in by_seed.values()):
        return ""
    return _spread([mean(values) for values in by_seed.values()])


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    found = spread(values)
    error = found.standard_error
    return f"{found.mean:.1f}" if error is None else f"{found.mean:.1f} ± {error:.1f}"


def _in_words(found: Difference, digits: int) -> str:
    if found.low is None or found.high is None:
        return f"{found.mean:+.{digits}f}"
    return f"{found.mean:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"
