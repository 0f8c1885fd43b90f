"""Settings are chosen on the sources of each target; the target itself is not in the data set of its choice."""

from argparse import Namespace
from pathlib import Path

import accuracy_arms
import accuracy_per_query
import pytest
from accuracy_arms import Arm
from accuracy_runs import Outcome
from source_settings import as_sources_choose, choices_of, link_sources, row_of, source_cells

DOMAINS = ("art", "cartoon", "photo")
ARMS = (Arm("default", ()), Arm("other", ("--trust", "agreement")))


def _outcome(arm: Arm, target: str, held_out: str, accuracy: float) -> Outcome:
    return Outcome(row_of(arm, target), "", held_out, 0, accuracy, None, None, 0, 0, "")


def test_the_target_is_not_in_the_data_of_its_choice(tmp_path: Path) -> None:
    data, home = tmp_path / "data", tmp_path / "home"
    for domain in (*DOMAINS, "unused"):
        (data / domain / "dog").mkdir(parents=True)
        (data / domain / "dog/1.png").write_bytes(domain.encode())
    for _ in range(2):  # a benchmark that goes on finds the links there
        link_sources(data, DOMAINS, home)
    for target in DOMAINS:
        domains = {path.relative_to(home).parts[1] for path in home.glob(f"without-{target}/*/dog/1.png")}
        assert domains == {*DOMAINS} - {target}
    cells = list(source_cells(home, DOMAINS, ARMS, range(2)))
    assert len(cells) == 2 * 3 * 2 * len(ARMS)
    for cell in cells:
        assert (cell.data / cell.target).is_dir()
        assert cell.data.name != f"without-{cell.target}"
        assert cell.arm.row.endswith(cell.data.name.replace("-", " "))
    assert len({(cell.arm.row, cell.target, cell.seed) for cell in cells}) == len(cells)


def test_each_target_takes_the_setting_that_its_sources_like_best() -> None:
    outcomes = [
        _outcome(arm, target, held_out, 0.5 if arm is ARMS[0] else {"art": 0.7}.get(target, 0.4))
        for arm in ARMS
        for target in DOMAINS
        for held_out in DOMAINS
        if held_out != target
    ]
    default, other = choices_of(outcomes, DOMAINS, ARMS)
    assert (default["best for"], other["best for"]) == ("cartoon, photo", "art")
    assert (default["for art"], other["for art"], other["options"]) == (50.0, 70.0, "--trust agreement")


def test_a_row_as_its_sources_choose_has_the_best_setting_of_each_target() -> None:
    settings = {"rows": [{"setting": "default", "best for": "cartoon, photo"}, {"setting": "other", "best for": "art"}]}
    outcomes = [
        Outcome(arm.row, "", target, 0, accuracy, None, None, 0, 0, "")
        for arm, accuracy in zip(ARMS, (0.5, 0.7), strict=True)
        for target in ("art", "cartoon")
    ]
    found = as_sources_choose(outcomes, settings, "chosen")
    assert {(one.row, one.target, one.note, one.accuracy) for one in found} == {
        ("chosen", "art", "other", 0.7),
        ("chosen", "cartoon", "default", 0.5),
    }
    assert as_sources_choose(outcomes, {"rows": [{"setting": "other", "best for": "art"}]}, "chosen") == []


def test_settings_differ_in_one_thing_from_the_default_or_from_itself_without_soft_labels() -> None:
    arms = accuracy_arms.setting_arms()
    default, plain = ("--views", "4"), ("--views", "4", "--soft-label-weight", "0")
    for arm in arms:
        first = plain if arm.row.startswith(accuracy_arms.NO_SOFT) else default
        assert arm.options[: len(first)] == first, arm.row
        assert len(arm.options) - len(first) in (0, 2), arm.row
    assert len({arm.options for arm in arms}) == len(arms)


def test_an_arm_that_a_benchmark_does_not_know_is_refused() -> None:
    named = Namespace(kind="settings", arm=["default--k-4", "default--soft-labels-16"])
    with pytest.raises(SystemExit, match=r"settings has no arm default--soft-labels-16; it has default-without-soft"):
        accuracy_per_query.chosen_arms(named)
    assert [arm.row for arm in accuracy_per_query.chosen_arms(Namespace(kind="gap", arm=None))] == [
        arm.row for arm in accuracy_arms.gap_arms()
    ]
