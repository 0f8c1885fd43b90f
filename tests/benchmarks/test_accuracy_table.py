"""The verdicts of the benchmark: paired by target and seed, and undecided inside two standard errors."""

from __future__ import annotations

import pytest
from accuracy_arms import ADIP_4, DEFAULT_4, ERM, ONLINE, TEACHER, curve_arms, table_arms
from accuracy_runs import Outcome
from accuracy_table import goals_of, paired, rows_of


def _outcome(row: str, target: str, seed: int, percent: float, queries: int = 0) -> Outcome:
    return Outcome(row, "", target, seed, percent / 100, 0.9, 0.1, queries, 100 * queries, "")


def _three(row: str, percents: tuple[float, float, float], queries: int = 0) -> list[Outcome]:
    return [_outcome(row, "art", seed, percent, queries) for seed, percent in enumerate(percents)]


def test_differences_are_paired_and_what_stands_alone_is_left_out() -> None:
    outcomes = [_outcome(ADIP_4, "art", 0, 70), _outcome(ERM, "art", 0, 60), _outcome(ADIP_4, "photo", 0, 90)]
    assert paired(outcomes, ADIP_4, ERM) == [pytest.approx(10)]


@pytest.mark.parametrize(
    ("default", "verdict"),
    [((75.0, 75.2, 74.8), "met"), ((61.0, 61.2, 60.8), "missed"), ((60.0, 63.5, 67.0), "undecided")],
)
def test_a_goal_is_met_missed_or_undecided(default: tuple[float, float, float], verdict: str) -> None:
    (goal,) = goals_of([*_three(ERM, (60, 60, 60)), *_three(DEFAULT_4, default)])
    assert goal.name == "default above ERM, points"
    assert str(goal.value).endswith(verdict)
    assert goal.met == (verdict == "met")


def test_a_row_counts_what_it_cost_and_says_nothing_of_targets_it_left_out() -> None:
    outcomes = [*_three(ERM, (60, 62, 64)), *_three(ADIP_4, (66, 66, 66), queries=500), _outcome(ERM, "photo", 0, 90)]
    erm, adip = rows_of(outcomes, [ERM, ADIP_4])
    assert (erm["art"], erm["photo"], adip["photo"], adip["all"]) == ("62.0 ± 1.2", "90.0", "", "")
    assert (adip["queries"], adip["price, micro"]) == (500, 50_000)
    assert adip["over ERM"] == "4.0 ± 1.2"
    assert adip["over ERM per 1,000 queries"] == 8
    assert adip["over online"] == ""


def test_a_row_is_compared_with_the_online_one_pair_by_pair() -> None:
    online, adip = rows_of([*_three(ONLINE, (70, 60, 50)), *_three(ADIP_4, (71, 59, 50))], [ONLINE, ADIP_4])
    assert (online["over online"], adip["over online"]) == ("", "0.0 ± 0.6")


def test_the_teacher_is_asked_about_each_picture() -> None:
    (teacher,) = rows_of(_three(TEACHER, (98, 99, 97)), [TEACHER])
    assert (teacher["queries"], teacher["price, micro"]) == ("1 a picture", "")


@pytest.mark.parametrize("arms", [table_arms(), curve_arms()])
def test_no_two_arms_share_a_folder_or_a_row(arms: tuple) -> None:  # type: ignore[type-arg]
    assert len({arm.slug for arm in arms}) == len({arm.row for arm in arms}) == len(arms)


def test_the_curve_runs_nothing_again_that_the_table_has() -> None:
    assert set(table_arms()) <= set(curve_arms())
