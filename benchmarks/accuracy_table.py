"""The statistics of `accuracy_per_query.py`: means over seeds, differences with intervals, and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import mean

from accuracy_arms import BESIDE_TEACHER, CHOSEN_4, ERM, ERM_ROWS, ONLINE, TEACHER
from accuracy_goals import SHARE_GOALS, TABLE_GOALS, Wanted
from accuracy_runs import Outcome
from intervals import DRAWS, FEWEST_SEEDS, Difference, difference, share_of_gap
from result import Goal

from vl2v_client.config.presets import THOROUGH
from vl2v_client.reports.sweep_report import spread

SMALLEST_GAP = 5.0
"""Points between ERM and its teacher from which a target counts for the share of the gap that is closed."""

TOO_FEW_PAIRS = 3
"""So many pairs of target and seed, or fewer, decide nothing."""


def rows_of(
    outcomes: Sequence[Outcome],
    names: Sequence[str],
    reference: str = ONLINE,
    *,
    shared_pictures: bool,
    compared: Sequence[Outcome] | None = None,
) -> list[dict[str, object]]:
    """A row per name with the accuracy on each unseen domain in percent, mean and standard error over seeds.

    Args:
        outcomes: of all rows.
        names: of the rows, in order.
        reference: the row that, besides ERM, all are compared with.
        shared_pictures: all seeds of a target are tested on the same pictures.
        compared: of the targets that differences are taken over; all by default.
    """
    targets = list(dict.fromkeys(outcome.target for outcome in outcomes))
    shown = [name for name in names if any(outcome.row == name for outcome in outcomes)]
    compared = outcomes if compared is None else compared
    return [_row(name, outcomes, targets, compared, reference, shared_pictures) for name in shown]


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


def goals_of(
    outcomes: Sequence[Outcome],
    wanted: Sequence[Wanted] = TABLE_GOALS,
    *,
    shared_pictures: bool,
    everywhere: bool = False,
) -> list[Goal]:
    """What the table has to show; goals whose rows are missing, or `everywhere` lack a target, are left out."""
    found, targets = [], {one.target for one in outcomes}
    for name, high, low, words, bound in wanted:
        if everywhere and any(targets > {one.target for one in outcomes if one.row == row} for row in (high, low)):
            continue
        measured = difference(outcomes, high, low, shared_pictures=shared_pictures)
        if measured is not None:
            found.append(_goal(name, measured, words, bound, at_most=words.startswith("<")))
    return found


def of_the_gap(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The outcomes on the targets that count for the share of the gap: ERM is far enough below its teacher there."""

    def mean_of(row: str, target: str) -> float | None:
        found = [100 * one.accuracy for one in outcomes if (one.row, one.target) == (row, target)]
        return mean(found) if found else None

    def counts(target: str) -> bool:
        teacher, erm = mean_of(TEACHER, target), mean_of(ERM, target)
        return teacher is not None and erm is not None and teacher - erm >= SMALLEST_GAP

    counted = {target for target in {one.target for one in outcomes} if counts(target)}
    return [one for one in outcomes if one.target in counted]


def gap_notes(outcomes: Iterable[Outcome]) -> list[str]:
    """How the rows of the gap and its shares are to be read."""
    chosen = f"{CHOSEN_4}, is for each target the row that `accuracy_per_query.py settings` found best on its sources."
    return [
        f"ERM is the best of {', '.join(ERM_ROWS)} on source validation, for each target and seed.",
        *([chosen] if any(outcome.row == CHOSEN_4 for outcome in outcomes) else []),
        f"Rows that name thorough take {THOROUGH} times the distill steps of the others.",
        "The share of the gap is the sum of (row - ERM) over that of (teacher - ERM), of the targets where the latter "
        f"is at least {SMALLEST_GAP:g} points; its interval is from the same bootstrap, whose draws are the same for "
        "the three rows.",
        "Differences are of these targets too, but for goals of all targets.",
    ]


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


def share_goals(
    outcomes: Sequence[Outcome], wanted: Sequence[tuple[str, float]] = SHARE_GOALS, *, shared_pictures: bool
) -> list[Goal]:
    """How much of the gap between ERM and the teacher each row closes: a goal for each row and its share.

    The outcomes are those of `of_the_gap`.
    """
    found = []
    for row, least in wanted:
        closed = share_of_gap(outcomes, row, ERM, TEACHER, shared_pictures=shared_pictures)
        if closed is not None:
            pairs = sum(closed.seeds.values())
            verdict = _verdict(closed.low, closed.high, pairs, least, at_most=False)
            words = f"{_percent(closed.share)} %"
            if closed.low is not None and closed.high is not None:
                words += f" ({_percent(closed.low)} to {_percent(closed.high)})"
            value = f"{words} on {' and '.join(closed.seeds)}, {_pairs(pairs)}: {verdict}"
            found.append(Goal(f"gap closed by {row}", value, f">= {_percent(least)} %", verdict == "met"))
    return found


def _percent(share: float) -> str:
    return f"{100 * share:.0f}"


def _pairs(count: int) -> str:
    return f"{count} pair{'s' if count > 1 else ''}"


def _goal(name: str, found: Difference, words: str, bound: float, *, at_most: bool) -> Goal:
    verdict = _verdict(found.low, found.high, found.pairs, bound, at_most=at_most)
    return Goal(f"{name}, points", f"{_in_words(found, 2)}, {_pairs(found.pairs)}: {verdict}", words, verdict == "met")


def _verdict(low: float | None, high: float | None, pairs: int, bound: float, *, at_most: bool) -> str:
    """Decided only if the whole interval lies on one side of the bound, and enough pairs stand behind it."""
    if pairs <= TOO_FEW_PAIRS or low is None or high is None:
        return "undecided"
    below, above = high < bound, low > bound
    if not below and not above:
        return "undecided"
    return "met" if below == at_most else "missed"


def _row(
    name: str,
    outcomes: Sequence[Outcome],
    targets: Sequence[str],
    compared: Sequence[Outcome],
    reference: str,
    shared_pictures: bool,
) -> dict[str, object]:
    def over(other: str) -> str:
        found = None if other == name else difference(compared, name, other, shared_pictures=shared_pictures)
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
