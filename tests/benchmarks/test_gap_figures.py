"""What docs/accuracy.md says of the gap and of its settings is what the results and their record have."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from accuracy_arms import (
    CHOSEN_4,
    DEFAULT_4,
    DEFAULT_SOFT,
    KD_4,
    LP_FT_THOROUGH,
    ONE_VIEW,
    OTHERS,
    TEXT_HEAD,
    THOROUGH_SOFT,
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


def _compare_settings(table: list[list[str]], names: list[str], rows: dict[str, Any]) -> None:
    header, *lines = table
    for name, (_, *cells) in zip(names, lines, strict=True):
        assert cells == [f"{rows[name][column.replace('art ', 'art_')]:.1f}" for column in header[1:]], name


def test_the_settings_tables_are_the_results() -> None:
    rows = {row["setting"]: row for row in accuracy_result("settings_pacs-128")["rows"]}
    names = ["default, K=4", "default, the six styles", "default, no styles", "default, by agreement"]
    _, table, of_losses, of_one_view = tables_of("docs/accuracy.md", SETTINGS)
    losses = [DEFAULT_4, VL2LITE_4, "default, soft labels 4", DEFAULT_SOFT]
    assert {*names, *losses} == set(rows)
    _compare_settings(table, names, rows)
    _compare_settings(of_losses, losses, rows)
    mean = {name: sum(rows[name][f"for {target}"] for target in TARGETS) / 3 for name in losses}
    assert max(mean, key=mean.__getitem__) == DEFAULT_SOFT
    means = "{3:.1f} with weight 16; 4 has {2:.1f}, VL2Lite {1:.1f}, the default {0:.1f}".format(*mean.values())
    assert f"best mean of the three columns, {means}" in in_one_line(section_of("docs/accuracy.md", SETTINGS))
    assert [rows[name]["best for"] for name in losses[1:]] == ["cartoon", "art_painting", "photo"]
    of_cartoon = [rows[name]["for cartoon"] for name in (VL2LITE_4, DEFAULT_SOFT)]
    assert f"VL2Lite, {of_cartoon[0] - of_cartoon[1]:.1f} above weight 16" in in_one_line(
        section_of("docs/accuracy.md", SETTINGS)
    )
    one = {row["setting"]: row for row in accuracy_result("settings-of-one-view_pacs-128")["rows"]}
    names = [f"default, K=1, {row}" for row in ONE_VIEW if row != "styled views that borrow"]
    names += [f"default, K=1 of four, {row}" for row in OTHERS]
    assert len(one) == len(names)
    _compare_settings(of_one_view, names, one)
    alone, any_view = one[names[0]], one[names[-1]]
    assert {name: one[name]["best for"] for name in names if one[name]["best for"] != "-"} == {
        names[0]: "cartoon",
        names[-1]: "art_painting, photo",
    }
    more = {target: any_view[f"for {target}"] - alone[f"for {target}"] for target in TARGETS}
    chosen = "by {:.1f} and {:.1f} points over the preset's; those of cartoon prefer the preset's, by {:.1f}"
    choice = in_one_line(section_of("docs/accuracy.md", SETTINGS))
    assert chosen.format(more["art_painting"], more["photo"], -more["cartoon"]) in choice
    recorded = recorded_runs("pacs-128")
    runs = {(one["row"], one["target"], one["seed"]): f"{100 * one['accuracy']:.1f}" for one in recorded}
    prose = in_one_line(section_of("docs/accuracy.md", SETTINGS))
    for target, without, words in (
        ("cartoon", "art_painting", "from {} without to {} when"),
        ("photo", "cartoon", "photo least ({} to {})"),
    ):
        pair = (runs[f"default, {row}, without {without}", target, 0] for row in ("no styles", "K=4"))
        assert words.format(*pair) in prose
    drawn, six = (rows[name]["for cartoon"] for name in ("default, K=4", "default, the six styles"))
    assert f"choose the six styles**, by {six - drawn:.1f} points" in prose
    styled, alone = (
        {
            run["target"]: f"{100 * run['accuracy']:.1f}"
            for run in recorded
            if run["row"] == "default, K=1" and not run["seed"] and ("--train-views" in run["options"]) == borrows
        }
        for borrows in (True, False)
    )
    assert f"one seed: {styled['art_painting']} on art painting and {styled['cartoon']} on cartoons" in prose
    assert f"where the bought view alone has {alone['art_painting']} and {alone['cartoon']}" in prose
    assert f"The {runs['default, K=4', 'cartoon', 0]} are also what `default` has" in prose


def test_the_prose_of_the_gap_is_the_result() -> None:
    result = accuracy_result("gap_pacs-128")
    prose, command = in_one_line(section_of("docs/accuracy.md", GAP)), shlex.split(result["command"])
    count = {2: "two", 3: "three"}
    seeds, targets = int(command[command.index("--seeds") + 1]), command.count("--target")
    assert f"**{count[seeds]} seeds and {count[targets]} targets**" in prose
    (holds,) = tables_of("docs/accuracy.md", "What holds for which table")
    (line,) = (line for line in holds if "(#the-share-of-the-gap)" in line[0])
    assert line[3] == f"{seeds}, figures without ± 1"
    fewer = {"default, 25 % of K=1, any view", "default, K=1, styled views of their text", "default, text only"}
    fewer |= {TEXT_HEAD, KD_4, LP_FT_THOROUGH, THOROUGH_SOFT}
    fewer |= {DEFAULT_SOFT, CHOSEN_4}  # on photo
    shown = {row[""]: [row[target] for target in TARGETS if row[target]] for row in result["rows"]}
    assert {row for row, cells in shown.items() if any("±" not in cell for cell in cells)} == fewer
    gains = {goal["name"]: goal["value"].split()[0] for goal in result["goals"]}
    any_view, four = (float(gains[f"{row} above ERM, points"]) for row in ("default, K=1, any view,", "default"))
    assert "Half of what `default` gains over ERM is had so" in prose
    assert any_view / four == pytest.approx(0.5, abs=0.02)
    shares = {goal["name"]: goal["value"].partition(" on ")[0].partition(" (")[0] for goal in result["goals"]}
    assert f"`thorough`, {shares['gap closed by thorough, K=4']}, sets" in prose
    assert f"`default` closes {shares['gap closed by default, K=4']}." in prose


def test_the_ablation_is_the_result() -> None:
    rows = {row[""]: row for row in accuracy_result("ablation_pacs-128")["rows"]}
    (table,) = (table for table in tables_of("docs/accuracy.md", GAP) if "changed" in table[0][0])
    header, *lines = table
    names = ["K=4", "nothing frozen", "align by Adam alone"]
    assert len(lines) == len(names)
    assert set(rows) == {f"default, {name}" for name in names}
    for name, (label, *cells) in zip(names, lines, strict=True):
        assert cells == [rows[f"default, {name}"][COLUMNS.get(one, one)] for one in header[1:]], label


def test_the_first_seed_of_fewer_queries_is_the_record() -> None:
    first = [one for one in recorded_runs("pacs-128") if one["seed"] == 0]
    rows_shown = ("K=4", "25 % of K=1, any view", "25 % of K=1", "text only", "K=1, styled views of their text")
    erm, of = 0.0, dict.fromkeys(rows_shown, 0.0)
    for target in ("art_painting", "cartoon"):
        rows = [one for one in first if one["target"] == target]
        trained = [one for one in rows if one["row"] in ("ERM, linear probe", "ERM, LP-FT", "ERM, fine-tuning")]
        assert len(trained) == 3
        erm += 50 * max(trained, key=lambda one: one["in_domain"])["accuracy"]
        for row in of:
            newest = [one for one in rows if one["row"] == f"default, {row}"][-1]
            of[row] += 50 * newest["accuracy"]
    prose, (four, any_view, first_view, text, beside) = in_one_line(section_of("docs/accuracy.md", GAP)), of.values()
    assert f"ERM has {erm:.1f} in the mean of both targets and K=4 {four:.1f}" in prose
    assert f"a quarter of K=1 has {any_view:.1f} about any view, {first_view:.1f} about the canonical one" in prose
    assert f"The class prompts alone, seven queries, have {text:.1f}" in prose
    assert f"and {beside:.1f} where the canonical one has its answer" in prose


def test_other_losses_and_more_steps_for_labels_are_the_record() -> None:
    first = [one for one in recorded_runs("pacs-128") if not one["seed"] and "--distill-steps" not in one["options"]]
    of = {(one["row"], one["target"]): 100 * one["accuracy"] for one in first}
    rows = (LP_FT_THOROUGH, "thorough, K=4", "zero-shot teacher")
    mean = {row: (of[row, "art_painting"] + of[row, "cartoon"]) / 2 for row in rows}
    erm, prose = 61.9, in_one_line(section_of("docs/accuracy.md", GAP))  # tested above

    def both(row: str) -> str:
        return f"{of[row, 'art_painting']:.1f} and {of[row, 'cartoon']:.1f}"

    assert f"KD has {both('KD, K=4')}, the default {both('default, K=4')}, and the text head" in prose
    assert f"alone, {both('text head')}." in prose
    assert (
        f"weight 16 has {both(THOROUGH_SOFT)} (art painting, cartoon), and `thorough` {both('thorough, K=4')}" in prose
    )
    goals = {goal["name"]: goal["value"] for goal in accuracy_result("gap_pacs-128")["goals"]}
    share = goals[f"gap closed by {DEFAULT_SOFT}"].partition(" on ")[0]
    gain, against = (
        goals[f"{name}, points"].partition(", ")[0]
        for name in (f"{DEFAULT_SOFT}, above default", "default above VL2Lite at equal queries")
    )
    chosen = goals[f"gap closed by {CHOSEN_4}"].partition(" on ")[0]
    assert f"the loss that each target's own sources choose closes {chosen}." in prose
    assert f"close {share} of the gap and are {gain} points above the default. The default is {against} points" in prose
    assert f"LP-FT has {both(LP_FT_THOROUGH)} with the 1,700 steps" in prose
    assert f"{both('ERM, LP-FT')} with 500" in prose
    teacher, thorough = mean["zero-shot teacher"], mean["thorough, K=4"]
    from_lp_ft, from_erm = ((thorough - low) / (teacher - low) for low in (mean[LP_FT_THOROUGH], erm))
    assert f"closes {100 * from_lp_ft:.0f} % of the gap in that seed, and {100 * from_erm:.0f} % measured" in prose


def test_photo_does_not_count_for_the_gap() -> None:
    result = accuracy_result("gap_pacs-128")
    on_photo = {row[""]: row["photo"].partition(" ")[0] for row in result["rows"] if row["photo"]}
    assert 0 < float(on_photo["zero-shot teacher"]) - float(on_photo["ERM"]) < 5
    prose = in_one_line(section_of("docs/accuracy.md", GAP))
    assert f"teacher's {on_photo['zero-shot teacher']} is less than five points above ERM's {on_photo['ERM']}" in prose
    assert f"VL2V-ADiP has {on_photo['VL2V-ADiP, K=4']} and the default {on_photo['default, K=4']}" in prose
    goals = {goal["name"]: goal["value"] for goal in result["goals"]}
    above = goals["default above VL2V-ADiP, all targets, points"].partition(", ")[0]
    assert f"over all three targets the default is {above} points above VL2V-ADiP" in prose
