"""The statistics of `accuracy_per_query.py`: means, standard errors, and differences paired by target and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean

from accuracy_arms import ADIP_1, ADIP_4, DEFAULT_4, ERM, ERM_OF_DEFAULT, ONLINE, QUARTER, TEACHER, TEXT_ONLY
from accuracy_runs import Outcome
from result import Goal

from vl2v_client.evaluation.spread import spread

UNDECIDED = 2
"""A goal this many standard errors away, or less, is undecided."""


def rows_of(outcomes: Sequence[Outcome], names: Sequence[str], reference: str = ONLINE) -> list[dict[str, object]]:
    """A row per name with the accuracy on each unseen domain in percent, mean and standard error over seeds.

    Args:
        outcomes: of all rows.
        names: of the rows, in order.
        reference: the row that, besides ERM, all are compared with.
    """
    targets = list(dict.fromkeys(outcome.target for outcome in outcomes))
    return [
        _row(name, outcomes, targets, reference) for name in names if any(outcome.row == name for outcome in outcomes)
    ]


def goals_of(outcomes: Sequence[Outcome]) -> list[Goal]:
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
        differences = paired(outcomes, high, low)
        if differences:
            found.append(_goal(name, differences, words, bound, at_most=words.startswith("<")))
    return found


def paired(outcomes: Sequence[Outcome], high: str, low: str) -> list[float]:
    """`high` less `low` in points, for each target and seed that has both."""
    by_row: dict[str, Mapping[tuple[str, int], float]] = {
        row: {(outcome.target, outcome.seed): outcome.accuracy for outcome in outcomes if outcome.row == row}
        for row in (high, low)
    }
    both = sorted(by_row[high].keys() & by_row[low].keys())
    return [100 * (by_row[high][place] - by_row[low][place]) for place in both]


def _goal(name: str, differences: Sequence[float], words: str, bound: float, *, at_most: bool) -> Goal:
    found = spread(differences)
    if found.standard_error is None:
        return Goal(f"{name}, points", f"{found.mean:+.2f}, of one pair: undecided", words, False)
    distance = bound - found.mean if at_most else found.mean - bound
    margin = UNDECIDED * found.standard_error
    verdict = "met" if distance > margin else "missed" if distance < -margin else "undecided"
    value = f"{found.mean:+.2f} ± {found.standard_error:.2f} over {len(differences)} pairs: {verdict}"
    return Goal(f"{name}, points", value, words, verdict == "met")


def _row(name: str, outcomes: Sequence[Outcome], targets: Sequence[str], reference: str) -> dict[str, object]:
    mine = [outcome for outcome in outcomes if outcome.row == name]
    in_domain = [outcome.in_domain for outcome in mine if outcome.in_domain is not None]
    errors = [outcome.calibration_error for outcome in mine if outcome.calibration_error is not None]
    queries = mean(outcome.queries for outcome in mine)
    gain, lead = paired(outcomes, name, ERM), paired(outcomes, name, reference)
    return {
        "": name,
        **{
            target: _spread([100 * outcome.accuracy for outcome in mine if outcome.target == target])
            for target in targets
        },
        "all": _over_targets(mine, targets),
        "source validation": round(100 * mean(in_domain), 1) if in_domain else "",
        "calibration error": round(mean(errors), 3) if errors else "",
        "queries": round(queries) if name != TEACHER else "1 a picture",
        "price, micro": round(mean(outcome.amount_micro for outcome in mine)) if name != TEACHER else "",
        "over ERM": _spread(gain) if name != ERM else "",
        f"over {reference.rpartition(', ')[2]}": _spread(lead) if name != reference else "",
        "over ERM per 1,000 queries": round(1000 * mean(gain) / queries, 2) if gain and queries else "",
    }


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
