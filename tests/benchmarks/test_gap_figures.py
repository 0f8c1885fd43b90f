"""What docs/accuracy.md says of the gap and of its settings is what the results and their record have."""

from __future__ import annotations

import shlex
from typing import Any

from accuracy_arms import (
    ADIP_4,
    CHOSEN_4,
    DEFAULT_1,
    DEFAULT_1_ANY,
    DEFAULT_4,
    DEFAULT_QUARTER,
    DEFAULT_QUARTER_ANY,
    DEFAULT_TEXT,
    ERM,
    ERM_ROWS,
    KD_4,
    LP_FT_THOROUGH,
    NO_SOFT,
    NO_SOFT_4,
    ONE_VIEW,
    OTHERS,
    SOFT_4,
    TEXT_HEAD,
    THOROUGH_4,
    THOROUGH_NO_SOFT_4,
    VL2LITE_4,
)

from support.accuracy_pages import (
    COLUMNS,
    GAP,
    SETTINGS,
    accuracy_result,
    in_one_line,
    recorded_runs,
    section_of,
    tables_of,
)

TARGETS = ("art_painting", "cartoon", "photo")
OF_TEXT = "styled views of their text"
FIRST_SEED_ALONE = {TEXT_HEAD, KD_4, LP_FT_THOROUGH, DEFAULT_TEXT}
"""Rows whose figures, or some of them, are of the first seed."""


def _compare_settings(table: list[list[str]], names: list[str], rows: dict[str, Any]) -> None:
    header, *lines = table
    for name, (_, *cells) in zip(names, lines, strict=True):
        assert cells == [f"{rows[name][column.replace('art ', 'art_')]:.1f}" for column in header[1:]], name


def _settings_of(kind: str) -> dict[str, Any]:
    return {row["setting"]: row for row in accuracy_result(f"{kind}_pacs-128")["rows"]}


def _first_seed(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {run["target"]: f"{100 * run['accuracy']:.1f}" for run in rows if not run["seed"]}


LOSSES = [NO_SOFT_4, VL2LITE_4, SOFT_4, DEFAULT_4, "default, nothing frozen"]
VIEWS = [NO_SOFT_4, *(f"{NO_SOFT}, {row}" for row in ("the six styles", "no styles", "by agreement"))]


def test_what_the_sources_say_of_the_views_is_the_result() -> None:
    rows, prose = _settings_of("settings"), in_one_line(section_of("docs/accuracy.md", SETTINGS))
    assert {*VIEWS, *LOSSES} == set(rows)
    _compare_settings(tables_of("docs/accuracy.md", SETTINGS)[1], VIEWS, rows)
    drawn, six = (rows[name]["for cartoon"] for name in VIEWS[:2])
    assert f"choose the six styles**, by {six - drawn:.1f} points" in prose
    runs = {
        (one["row"], one["target"], one["seed"]): f"{100 * one['accuracy']:.1f}" for one in recorded_runs("pacs-128")
    }
    for target, without, words in (
        ("cartoon", "art_painting", "from {} without to {} when"),
        ("photo", "cartoon", "photo least ({} to {})"),
    ):
        pair = (runs[f"{NO_SOFT}, {row}, without {without}", target, 0] for row in ("no styles", "K=4"))
        assert words.format(*pair) in prose
    assert f"The {runs[NO_SOFT_4, 'cartoon', 0]} are also what the default without soft labels has" in prose


def test_what_the_sources_say_of_the_loss_is_the_result() -> None:
    rows, prose = _settings_of("settings"), in_one_line(section_of("docs/accuracy.md", SETTINGS))
    _compare_settings(tables_of("docs/accuracy.md", SETTINGS)[2], LOSSES, rows)
    mean = {name: sum(rows[name][f"for {target}"] for target in TARGETS) / 3 for name in LOSSES}
    assert max(mean, key=mean.__getitem__) == DEFAULT_4
    means = "{3:.1f} with weight 16; 4 has {2:.1f}, VL2Lite {1:.1f}, the published loss alone {0:.1f}"
    assert f"best mean of the three columns, {means.format(*mean.values())}" in prose
    assert [rows[name]["best for"] for name in LOSSES[1:]] == ["cartoon", "art_painting", "photo", "-"]
    assert f"takes twice as long, the mean is {mean[LOSSES[-1]]:.1f}." in prose
    of_cartoon = [rows[name]["for cartoon"] for name in (VL2LITE_4, DEFAULT_4)]
    assert f"VL2Lite, {of_cartoon[0] - of_cartoon[1]:.1f} above weight 16" in prose


def test_what_the_sources_say_of_one_view_is_the_result() -> None:
    rows, prose = _settings_of("settings-of-one-view"), in_one_line(section_of("docs/accuracy.md", SETTINGS))
    names = [f"{NO_SOFT}, K=1, {row}" for row in ONE_VIEW if row != "styled views that borrow"]
    names += [f"{NO_SOFT}, K=1 of four, {row}" for row in OTHERS]
    assert len(rows) == len(names)
    _compare_settings(tables_of("docs/accuracy.md", SETTINGS)[3], names, rows)
    alone, any_view = rows[names[0]], rows[names[-1]]
    best = {name: rows[name]["best for"] for name in names if rows[name]["best for"] != "-"}
    assert best == {names[0]: "cartoon", names[-1]: "art_painting, photo"}
    more = {target: any_view[f"for {target}"] - alone[f"for {target}"] for target in TARGETS}
    chosen = "by {:.1f} and {:.1f} points over the preset's; those of cartoon prefer the preset's, by {:.1f}"
    assert chosen.format(more["art_painting"], more["photo"], -more["cartoon"]) in prose
    one_view = [run for run in recorded_runs("pacs-128") if run["row"] == f"{NO_SOFT}, K=1"]
    styled = _first_seed([run for run in one_view if "--train-views" in run["options"]])
    plain = _first_seed([run for run in one_view if "--train-views" not in run["options"]])
    of_text = _first_seed([run for run in recorded_runs("pacs-128") if run["row"] == f"{NO_SOFT}, K=1, {OF_TEXT}"])
    assert f"one seed: {styled['art_painting']} on art painting and {styled['cartoon']} on cartoons" in prose
    assert f"where the bought view alone has {plain['art_painting']} and {plain['cartoon']}" in prose
    assert f"of their text beside it {of_text['art_painting']} and {of_text['cartoon']}" in prose


def _goals() -> dict[str, str]:
    """What was measured, by goal, without its verdict."""
    return {goal["name"]: goal["value"].rpartition(": ")[0] for goal in accuracy_result("gap_pacs-128")["goals"]}


def _points(goal: str) -> str:
    return _goals()[f"{goal}, points"].rpartition(", ")[0]


def _share(row: str) -> str:
    return _goals()[f"gap closed by {row}"].partition(" on ")[0]


def _means() -> dict[str, dict[str, str]]:
    """The means of a row, by target."""
    return {
        row[""]: {one: row[one].partition(" ")[0] for one in TARGETS} for row in accuracy_result("gap_pacs-128")["rows"]
    }


def test_the_prose_of_the_gap_is_the_result() -> None:
    result = accuracy_result("gap_pacs-128")
    prose, command = in_one_line(section_of("docs/accuracy.md", GAP)), shlex.split(result["command"])
    count = {2: "two", 3: "three"}
    seeds, targets = int(command[command.index("--seeds") + 1]), command.count("--target")
    assert f"**{count[seeds]} seeds and {count[targets]} targets**" in prose
    (holds,) = tables_of("docs/accuracy.md", "What holds for which table")
    (line,) = (line for line in holds if "(#the-share-of-the-gap)" in line[0])
    assert line[3] == f"{seeds}, figures without ± 1"
    shown = {row[""]: [row[target] for target in TARGETS if row[target]] for row in result["rows"]}
    assert {row for row, cells in shown.items() if any("±" not in cell for cell in cells)} == FIRST_SEED_ALONE
    default, published, thorough = (_means()[row] for row in (DEFAULT_4, ADIP_4, THOROUGH_4))
    of_default, of_teacher = (_above_erm(_means()[row]) for row in (DEFAULT_4, "zero-shot teacher"))
    share = _share(DEFAULT_4).partition(" (")[0]
    assert f"For `default` it is ({of_default}) / ({of_teacher}), {share}." in prose
    assert f"`thorough`, {_share(THOROUGH_4).partition(' (')[0]}, sets" in prose
    assert f"on cartoons** ({default['cartoon']} against {published['cartoon']})" in prose
    assert (
        f"On art painting it has {default['art_painting']}, VL2V-ADiP {published['art_painting']} and `thorough` "
        f"{thorough['art_painting']}." in prose
    )


def _above_erm(means: dict[str, str]) -> str:
    return " + ".join(f"{means[target]} - {_means()[ERM][target]}" for target in TARGETS[:2])


def test_what_soft_labels_do_is_the_result() -> None:
    prose = in_one_line(section_of("docs/accuracy.md", GAP))
    default, thorough = (_points(f"{name} above itself without soft labels") for name in ("default", "thorough"))
    assert f"`default` is {default} points above itself without them, and `thorough` {thorough}." in prose
    assert f"`default` closes {_share(NO_SOFT_4)} of the gap, `thorough` {_share(THOROUGH_NO_SOFT_4)}, and" in prose
    assert f"`default` is {_points('default without soft labels above VL2V-ADiP')} points above VL2V-ADiP." in prose
    assert f"against it `default` is {_told('default above VL2Lite at equal queries')}." in prose
    assert f"on each target's own sources it closes {_share(CHOSEN_4)}." in prose
    rows = {row[""]: row for row in accuracy_result("gap_pacs-128")["rows"]}
    with_them, without = (rows[row]["source validation"] for row in (DEFAULT_4, NO_SOFT_4))
    assert f"`default` has {with_them} on source validation with them and {without} without" in prose
    six = [run["accuracy"] for run in recorded_runs("pacs-128") if run["row"] == f"{NO_SOFT}, the six styles"]
    shown = f"has {100 * sum(six) / len(six):.1f} on cartoon, with its own views {_means()[NO_SOFT_4]['cartoon']}"
    assert f"{shown} (three seeds)" in prose
    assert len(six) == 3


def test_the_ablation_is_the_result() -> None:
    rows = {row[""]: row for row in accuracy_result("ablation_pacs-128")["rows"]}
    (table,) = (table for table in tables_of("docs/accuracy.md", GAP) if "changed" in table[0][0])
    header, *lines = table
    names = [f"{NO_SOFT}, {name}" for name in ("K=4", "nothing frozen", "align by Adam alone")]
    assert set(rows) == set(names)
    for name, (label, *cells) in zip(names, lines, strict=True):
        assert cells == [rows[name][COLUMNS.get(one, one)] for one in header[1:]], label


def _first_seed_of_two() -> dict[tuple[str, str], dict[str, Any]]:
    """The newest outcome of the first seed, by row and target."""
    first = [one for one in recorded_runs("pacs-128") if not one["seed"] and "--distill-steps" not in one["options"]]
    return {(one["row"], one["target"]): one for one in first}


def _mean_of_two(row: str) -> float:
    return sum(50 * _first_seed_of_two()[row, target]["accuracy"] for target in TARGETS[:2])


def _erm_of_two() -> float:
    """ERM with the first seed: for each target the best of its three rows on source validation."""
    of, names = _first_seed_of_two(), [f"{ERM}, {row}" for row in ERM_ROWS]
    best = [max((of[name, one] for name in names), key=lambda run: run["in_domain"]) for one in TARGETS[:2]]
    return sum(50 * run["accuracy"] for run in best)


def _both(row: str) -> str:
    return " and ".join(f"{100 * _first_seed_of_two()[row, target]['accuracy']:.1f}" for target in TARGETS[:2])


def _told(goal: str) -> str:
    """The difference of a goal as the prose has it, which says so where it is undecided."""
    (value,) = (one["value"] for one in accuracy_result("gap_pacs-128")["goals"] if one["name"] == f"{goal}, points")
    return f"{_points(goal)} points{', undecided' if value.endswith('undecided') else ''}"


def _told_above(goal: str, what: str) -> str:
    found = _told(goal)
    return found.replace(" points", f" points above {what}", 1)


def test_what_fewer_queries_cost_is_the_result() -> None:
    prose = in_one_line(section_of("docs/accuracy.md", GAP))
    for words in (
        f"It closes {_share(DEFAULT_1_ANY)} of the gap and is {_told_above(f'{DEFAULT_1_ANY}, above ERM', 'ERM')};",
        f"four answers an image are {_told_above(f'default, K=4 above {DEFAULT_1_ANY}', 'it')}.",
        f"answers an image it is {_told(f'{DEFAULT_1_ANY}, above VL2V-ADiP with K=4')}.",
        f"394, closes {_share(DEFAULT_QUARTER_ANY)} and is",
        f"and is {_told_above(f'{DEFAULT_QUARTER_ANY}, above ERM', 'ERM')};",
        f"one answer an image is {_told_above(f'{DEFAULT_1_ANY}, above 25 % of it', 'that')}.",
        f"closes {_share(DEFAULT_1)}: {_told_above('default, K=1 above ERM', 'ERM')}, where four answers are",
        f"where four answers are {_told_above('default, K=4 above K=1', 'it')}.",
        f"closes {_share(DEFAULT_QUARTER)}, {_told_above('default, 25 % of K=1 above ERM', 'ERM')}, and one answer",
        f"one answer an image is {_told_above('default, K=1 above 25 % of it', 'that')}.",
        f"canonical one**: {_points(f'{DEFAULT_1_ANY}, above K=1 at equal queries')} points for as many queries",
        f"{_points(f'{DEFAULT_QUARTER_ANY}, above 25 % of K=1')} with a quarter of them",
    ):
        assert words in prose, words
    any_view, first = _means()[DEFAULT_1_ANY], _means()[DEFAULT_1]
    on_art = f"art painting {any_view['art_painting']} and {first['art_painting']}"
    assert f"({any_view['cartoon']} against {first['cartoon']}; {on_art})" in prose
    assert (
        f"ERM has {_erm_of_two():.1f} in the mean of both targets, the class prompts alone, seven queries, have "
        f"{_mean_of_two(DEFAULT_TEXT):.1f} and a quarter of K=1 about any view "
        f"{_mean_of_two(DEFAULT_QUARTER_ANY):.1f};" in prose
    )


def test_other_losses_and_more_steps_for_labels_are_the_record() -> None:
    prose = in_one_line(section_of("docs/accuracy.md", GAP))
    assert f"KD has {_both(KD_4)} (art painting, cartoon), the default {_both(DEFAULT_4)}, and the text head" in prose
    assert f"under the class prompts, {_both(TEXT_HEAD)}." in prose
    assert (
        f"LP-FT has {_both(LP_FT_THOROUGH)} with the 1,700 steps of `thorough`, {_both('ERM, LP-FT')} with 500" in prose
    )
    teacher, thorough = _mean_of_two("zero-shot teacher"), _mean_of_two(THOROUGH_4)
    from_lp_ft, from_erm = ((thorough - low) / (teacher - low) for low in (_mean_of_two(LP_FT_THOROUGH), _erm_of_two()))
    assert f"closes {100 * from_lp_ft:.0f} % of it in that seed; with ERM, {100 * from_erm:.0f} %." in prose


def test_photo_does_not_count_for_the_gap() -> None:
    on_photo = {row: means["photo"] for row, means in _means().items()}
    assert 0 < float(on_photo["zero-shot teacher"]) - float(on_photo[ERM]) < 5
    prose = in_one_line(section_of("docs/accuracy.md", GAP))
    assert f"teacher's {on_photo['zero-shot teacher']} is less than five points above ERM's {on_photo[ERM]}" in prose
    assert f"VL2V-ADiP has {on_photo[ADIP_4]} and the default {on_photo[DEFAULT_4]}" in prose
    above = _points("default above VL2V-ADiP, all targets")
    assert f"over all three targets the default is {above} points above VL2V-ADiP" in prose
