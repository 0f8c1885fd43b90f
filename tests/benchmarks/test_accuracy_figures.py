"""Every number of the documents' accuracies is the one that a benchmark wrote, in its row and column."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from accuracy_arms import FIELD, LP_FT_THOROUGH, ONE_VIEW, OTHERS

from support.figures import numbers_of_prose, without_source

ROOT = Path(__file__).parents[2]
INTERVAL = re.compile(r"[+-]\d+\.\d+ \([+-]\d+\.\d+ to [+-]\d+\.\d+\)")
GAP, SETTINGS, OLDER = "The share of the gap", "How the settings were chosen", "Photographs at 96 pixels"
PAGES = {
    ("docs/benchmarks.md", "Accuracy on an unseen domain"): ("gap_pacs-128", "table_shapes"),
    ("docs/accuracy.md", GAP): ("gap_pacs-128",),
    ("docs/accuracy.md", OLDER): ("table_pacs",),
    ("docs/accuracy.md", "Drawings: shapes"): ("table_shapes",),
    ("docs/accuracy.md", "Methods and plans, on development styles"): ("methods_development", "plans_development"),
}
"""Page and section: the results that its tables show, in order."""
COLUMNS = {"art painting": "art_painting", "all four": "all", "four styles": "all"}
"""Heading in a document: column of the result, where they differ."""
GOALS = {
    "default at least 3 above ERM": "default above ERM",
    "default at least 1 above VL2V-ADiP at equal queries": "default above VL2V-ADiP at equal queries",
    "K=1 within 1.0 of online": "K=1 below online",
    "K=4 within 0.5 of online": "K=4 below online",
    "a quarter of the queries within 1.0 of K=1": "25 % of the queries below K=1",
    "thorough closes at least 50 % of the gap": "gap closed by thorough, K=4",
    "default closes a part of the gap": "gap closed by default, K=4",
    "default as its sources choose closes a part of the gap": "gap closed by default as its sources choose, K=4",
    "VL2V-ADiP closes a part of the gap": "gap closed by VL2V-ADiP, K=4",
}
"""Goal in a document: its name in the result without the unit, where they differ."""
STYLES = ("photo", "cartoon", "sketch", "painting")
PROSE: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "What holds for which table": ((), {"128", "224"}),  # pixels
    "How it is measured": ((), {"1", "95", "96", "128"}),  # of the statistics; pixels
    GAP: (
        ("accuracy_gap_pacs-128",),
        {"0.5", "1,700", "500", "60", "61.9", "64.3", "65", "66.2", "67.4", "76.3", "78.4", "80.5"},
    ),  # normalisation; steps; one seed, tested below
    SETTINGS: (
        ("accuracy_settings_pacs-128", "accuracy_gap_pacs-128"),
        {
            "0.75",
            "0.8",
            "1.1",
            "3.6",
            "6.8",
            "400",
            "42.6",
            "56.5",
            "57.1",
            "58.0",
            "73.3",
            "74.1",
            "76.3",
            "93.1",
            "93.8",
        },
    ),  # tested below
    OLDER: (("accuracy_table_pacs",), {"5,001", "640,135", "8.4", "9.9"}),  # the published loop, epochs
    "Drawings: shapes": (
        ("accuracy_table_shapes", "accuracy_curve_shapes", "demo"),
        {"102", "800", "960", "13.1", "5.7", "25"},
    ),  # settings, and what is tested below
    "What the tables say": (
        ("accuracy_table_pacs", "accuracy_table_shapes"),
        {"19", "24", "80", "90.3", "94.9", "96.1", "2024"},
    ),
    "Methods and plans, on development styles": (
        ("accuracy_methods_development", "accuracy_plans_development"),
        {"3.6", "4.2", "7.5"},
    ),
    "What was missed, and what is undecided": (("accuracy_table_pacs", "accuracy_table_shapes"), {"1,027"}),
    "How fast it trains": (("training_speed",), {"1,500", "6,000"}),
    "Beside the paper": ((), set()),
    "Run it": ((), {"32", "96", "128", "2.13", "3.11"}),
}
"""Section of docs/accuracy.md: results that its prose is of, and numbers that are settings or follow from results."""


def _file(name: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text()))


def _result(name: str) -> dict[str, Any]:
    return _file(f"accuracy_{name}")


def _runs(name: str) -> list[dict[str, Any]]:
    lines = (ROOT / "benchmarks" / "results" / f"accuracy_{name}.runs.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def _section(page: str, section: str) -> str:
    return (ROOT / page).read_text().split(f"## {section}\n", 1)[1].split("\n## ", 1)[0]


def _words(text: str) -> str:
    return " ".join(text.split())


def _tables(page: str, section: str) -> list[list[list[str]]]:
    """The tables of a section: lines of cells, the heading first."""
    blocks = re.findall(r"(?:^\|.*\n)+", _section(page, section) + "\n", re.MULTILINE)
    rows = [[[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()] for block in blocks]
    return [[header, *lines] for header, _, *lines in rows]


def _row(result: dict[str, Any], label: str) -> dict[str, Any]:
    """The row of a result that a table's label names."""
    name = label.partition(":")[0]
    (row,) = (row for row in result["rows"] if row[""] in (name, f"VL2V-ADiP, {name}"))
    return dict(row)


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@pytest.mark.parametrize(("page", "section"), PAGES)
def test_each_cell_is_that_of_its_row_and_column(page: str, section: str) -> None:
    tables = [table for table in _tables(page, section) if "queries" in table[0]]
    for (header, *lines), name in zip(tables, PAGES[page, section], strict=True):
        result = _result(name)
        for label, *cells in lines:
            row = _row(result, label)
            assert [label, *cells] == [label, *(_text(row[COLUMNS.get(one, one)]) for one in header[1:])]
        shown = [_row(result, label)[""] for label, *_ in lines]
        assert len(set(shown)) == len(shown)
        if page == "docs/accuracy.md":
            assert set(shown) == {row[""] for row in result["rows"]}


@pytest.mark.parametrize(
    ("page", "section"),
    [place for place in PAGES if "development" not in place[1] and place[0] == "docs/accuracy.md"],
)
def test_each_verdict_is_the_result_s(page: str, section: str) -> None:
    (result,) = (_result(name) for name in PAGES[page, section])
    wanted = {goal["name"].removesuffix(", points"): goal["value"] for goal in result["goals"]}
    (lines,) = (lines for header, *lines in _tables(page, section) if header[-1] == "verdict")
    shown = {
        name.removesuffix(", points"): f"{measured.replace(' below', '')}: {verdict}"
        for name, measured, verdict in lines
    }
    assert {GOALS.get(name, name): value for name, value in shown.items()} == wanted


@pytest.mark.parametrize("section", PROSE)
def test_each_number_of_the_prose_is_in_a_result_or_a_setting(section: str) -> None:
    names, settings = PROSE[section]
    found = numbers_of_prose(_section("docs/accuracy.md", section))
    assert without_source(found, [_file(name) for name in names]) <= settings
    assert settings <= set(found), "a number that no longer stands there"


def test_all_sections_of_the_page_are_tested() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/accuracy.md").read_text(), re.MULTILINE)
    assert headings == list(PROSE)


@pytest.mark.parametrize("page", ["docs/benchmarks.md", "docs/accuracy.md"])
def test_each_interval_in_the_prose_is_a_result_s(page: str) -> None:
    results = [_result(name) for name in ("table_pacs", "table_shapes", "gap_pacs-128")]
    known = set(INTERVAL.findall(json.dumps(results)))
    found = INTERVAL.findall(_words((ROOT / page).read_text()))
    assert set(found) <= known
    assert len(found) > 3


@pytest.mark.parametrize(
    ("page", "section"), [place for place, names in PAGES.items() if "gap_pacs-128" in names] + [("README.md", None)]
)
def test_the_figures_of_pacs_name_their_teacher(page: str, section: str | None) -> None:
    text = (ROOT / page).read_text()
    body = text.split("\n## ", 1)[0] if section is None else _section(page, section)
    assert "stand-in for CLIP" in _words(body)
    if section is not None:
        assert "the unseen one included" in _words(body)
        assert "EfficientNet-lite0" in body


@pytest.mark.parametrize("name", ["table_pacs", "gap_pacs-128"])
def test_the_result_of_pacs_names_its_teacher(name: str) -> None:
    notes = " ".join(_result(name)["notes"])
    assert "stand-in for CLIP" in notes
    assert "the unseen one included" in notes


@pytest.mark.parametrize("name", ["pacs", "pacs-128", "shapes", "development"])
def test_each_recorded_accuracy_is_a_count_of_its_pictures(name: str) -> None:
    for outcome in _runs(name):
        right = outcome["accuracy"] * outcome["test_images"]
        assert right == pytest.approx(round(right), abs=1e-6)
        if outcome.get("right"):
            assert outcome["right"].count("1") == round(right)
            assert len(outcome["right"]) == outcome["test_images"]


def test_the_curve_s_table_is_the_result() -> None:
    rows = {row[""]: row for row in _result("curve_shapes")["rows"]}
    header, *lines = _tables("docs/accuracy.md", "Drawings: shapes")[-1]
    assert [line[0] for line in lines] == ["queries", "VL2V-ADiP", "default"]
    for column, shown in enumerate(header[1:], start=1):
        point = f"{shown} of K=1" if shown.endswith("%") else shown
        assert lines[0][column] == f"{rows[f'default, {point}']['queries']:,}", shown
        for name, *cells in lines[1:]:
            assert cells[column - 1] == rows[f"{name}, {point}"]["all"], (name, shown)


def _compare_settings(table: list[list[str]], names: list[str], rows: dict[str, Any]) -> None:
    header, *lines = table
    for name, (_, *cells) in zip(names, lines, strict=True):
        assert cells == [f"{rows[name][column.replace('art ', 'art_')]:.1f}" for column in header[1:]], name


def test_the_settings_tables_are_the_results() -> None:
    rows = {row["setting"]: row for row in _result("settings_pacs-128")["rows"]}
    names = ["default, K=4", "default, the six styles", "default, no styles", "default, by agreement"]
    _, table, of_one_view = _tables("docs/accuracy.md", SETTINGS)
    assert len(names) == len(rows)
    _compare_settings(table, names, rows)
    one = {row["setting"]: row for row in _result("settings-of-one-view_pacs-128")["rows"]}
    names = [f"default, K=1, {row}" for row in ONE_VIEW if row != "styled views that borrow"]
    names += [f"default, K=1 of four, {row}" for row in OTHERS]
    assert len(one) == len(names)
    _compare_settings(of_one_view, names, one)
    alone, any_view = one[names[0]], one[names[-1]]
    assert {name: one[name]["best for"] for name in names if one[name]["best for"] != "-"} == {
        names[0]: "cartoon",
        names[-1]: "art_painting, photo",
    }
    more = {
        target: any_view[f"for {target}"] - alone[f"for {target}"] for target in ("art_painting", "photo", "cartoon")
    }
    chosen = "by {:.1f} and {:.1f} points over the preset's; those of cartoon prefer the preset's, by {:.1f}"
    choice = _words(_section("docs/accuracy.md", SETTINGS))
    assert chosen.format(more["art_painting"], more["photo"], -more["cartoon"]) in choice
    runs = {(one["row"], one["target"], one["seed"]): f"{100 * one['accuracy']:.1f}" for one in _runs("pacs-128")}
    prose = _words(_section("docs/accuracy.md", SETTINGS))
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
            for run in _runs("pacs-128")
            if run["row"] == "default, K=1" and not run["seed"] and ("--train-views" in run["options"]) == borrows
        }
        for borrows in (True, False)
    )
    assert f"one seed: {styled['art_painting']} on art painting and {styled['cartoon']} on cartoons" in prose
    assert f"where the bought view alone has {alone['art_painting']} and {alone['cartoon']}" in prose
    assert f"The {runs['default, K=4', 'cartoon', 0]} are also what `default` has" in prose


def test_the_prose_of_the_gap_is_the_result() -> None:
    result = _result("gap_pacs-128")
    prose, command = _words(_section("docs/accuracy.md", GAP)), shlex.split(result["command"])
    count = {2: "two", 3: "three"}
    seeds, targets = int(command[command.index("--seeds") + 1]), command.count("--target")
    assert f"**{count[seeds]} seeds and {count[targets]} targets**" in prose
    (holds,) = _tables("docs/accuracy.md", "What holds for which table")
    (line,) = (line for line in holds if "(#the-share-of-the-gap)" in line[0])
    assert line[3] == f"{seeds}, rows without ± 1"
    of_seeds = {row[""]: "±" in row["cartoon"] for row in result["rows"]}
    fewer = {"default, 25 % of K=1, any view", "default, K=1, styled views of their text", "default, text only"}
    fewer |= {*FIELD, LP_FT_THOROUGH}
    assert {row for row, has_seeds in of_seeds.items() if not has_seeds} == fewer
    gains = {goal["name"]: goal["value"].split()[0] for goal in result["goals"]}
    any_view, four = (float(gains[f"{row} above ERM, points"]) for row in ("default, K=1, any view,", "default"))
    assert "Half of what `default` gains over ERM is had so" in prose
    assert any_view / four == pytest.approx(0.5, abs=0.02)
    shares = {goal["name"]: goal["value"].partition(" on ")[0].partition(" (")[0] for goal in result["goals"]}
    assert f"`thorough`, {shares['gap closed by thorough, K=4']}, sets" in prose
    assert f"`default` closes {shares['gap closed by default, K=4']}." in prose


def test_the_ablation_is_the_result() -> None:
    rows = {row[""]: row for row in _result("ablation_pacs-128")["rows"]}
    (table,) = (table for table in _tables("docs/accuracy.md", GAP) if "changed" in table[0][0])
    header, *lines = table
    names = ["K=4", "nothing frozen", "align by Adam alone"]
    assert len(lines) == len(names)
    assert set(rows) == {f"default, {name}" for name in names}
    for name, (label, *cells) in zip(names, lines, strict=True):
        assert cells == [rows[f"default, {name}"][COLUMNS.get(one, one)] for one in header[1:]], label


def test_the_first_seed_of_fewer_queries_is_the_record() -> None:
    first = [one for one in _runs("pacs-128") if one["seed"] == 0]
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
    prose, (four, any_view, first_view, text, beside) = _words(_section("docs/accuracy.md", GAP)), of.values()
    assert f"ERM has {erm:.1f} in the mean of both targets and K=4 {four:.1f}" in prose
    assert f"a quarter of K=1 has {any_view:.1f} about any view, {first_view:.1f} about the canonical one" in prose
    assert f"The class prompts alone, seven queries, have {text:.1f}" in prose
    assert f"and {beside:.1f} where the canonical one has its answer" in prose


def test_other_losses_and_more_steps_for_labels_are_the_record() -> None:
    first = [one for one in _runs("pacs-128") if not one["seed"] and "--distill-steps" not in one["options"]]
    of = {(one["row"], one["target"]): 100 * one["accuracy"] for one in first}
    rows = ("KD, K=4", "VL2Lite, K=4", LP_FT_THOROUGH, "thorough, K=4", "zero-shot teacher")
    mean = {row: (of[row, "art_painting"] + of[row, "cartoon"]) / 2 for row in rows}
    erm, prose = 61.9, _words(_section("docs/accuracy.md", GAP))  # tested above

    def both(row: str) -> str:
        return f"{of[row, 'art_painting']:.1f} and {of[row, 'cartoon']:.1f}"

    losses = (
        f"VL2Lite has {both('VL2Lite, K=4')}, KD {both('KD, K=4')}, the default {both('default, K=4')}, and the text"
    )
    assert losses in prose
    assert f"alone, {both('text head')}. So" in prose
    gains = [mean[row] - erm for row in ("KD, K=4", "VL2Lite, K=4")]
    assert f"worth {gains[0]:.1f} to {gains[1]:.1f} points over ERM's mean of {erm}" in prose
    assert f"LP-FT has {both(LP_FT_THOROUGH)} with the 1,700 steps" in prose
    assert f"{both('ERM, LP-FT')} with 500" in prose
    teacher, thorough = mean["zero-shot teacher"], mean["thorough, K=4"]
    from_lp_ft, from_erm = ((thorough - low) / (teacher - low) for low in (mean[LP_FT_THOROUGH], erm))
    assert f"closes {100 * from_lp_ft:.0f} % of the gap in that seed, and {100 * from_erm:.0f} % measured" in prose


def test_photo_does_not_count_for_the_gap() -> None:
    result = _result("gap_pacs-128")
    on_photo = {row[""]: row["photo"].partition(" ")[0] for row in result["rows"] if row["photo"]}
    assert 0 < float(on_photo["zero-shot teacher"]) - float(on_photo["ERM"]) < 5
    prose = _words(_section("docs/accuracy.md", GAP))
    assert f"teacher's {on_photo['zero-shot teacher']} is less than five points above ERM's {on_photo['ERM']}" in prose
    assert f"VL2V-ADiP has {on_photo['VL2V-ADiP, K=4']} and the default {on_photo['default, K=4']}" in prose
    goals = {goal["name"]: goal["value"] for goal in result["goals"]}
    above = goals["default above VL2V-ADiP, all targets, points"].partition(", ")[0]
    assert f"over all three targets the default is {above} points above VL2V-ADiP" in prose


def test_what_the_demo_s_gain_is_compared_with_is_the_result() -> None:
    rows = {row[""]: row for row in _result("table_shapes")["rows"]}
    mean = {name: {style: float(row[style].split()[0]) for style in STYLES} for name, row in rows.items()}
    gains = {style: mean["VL2V-ADiP, K=4"][style] - mean["ERM"][style] for style in STYLES}
    prose = _words(_section("docs/accuracy.md", "Drawings: shapes"))
    low, high = (choose(gain for style, gain in gains.items() if style != "sketch") for choose in (min, max))
    sketch = f"{mean['ERM']['sketch']:.1f} to {mean['VL2V-ADiP, K=4']['sketch']:.1f}"
    assert (
        f"sketch gains {gains['sketch']:.1f} over three seeds ({sketch}), the other styles {low:.1f} to {high:.1f}"
        in prose
    )
    with_views = (mean[name]["sketch"] for name in ("ERM, views of default", "default, K=4"))
    assert "({:.1f} against its {:.1f})".format(*with_views) in prose


def test_the_shares_of_the_gap_in_the_older_tables_follow_from_the_means() -> None:
    share = {}
    for name in ("table_pacs", "table_shapes"):
        gap = float(_row(_result(name), "zero-shot teacher")["over ERM"].split()[0])
        gains = {goal["name"]: float(goal["value"].split()[0]) for goal in _result(name)["goals"]}
        for row in ("VL2V-ADiP", "default"):
            share[name, row] = f"{100 * gains[f'{row} above ERM, points'] / gap:.0f} %"
    prose = _words(_section("docs/accuracy.md", "What the tables say"))
    assert f"it closes {share['table_pacs', 'VL2V-ADiP']} of the gap between ERM and the teacher on PACS" in prose
    assert f"and {share['table_shapes', 'VL2V-ADiP']} on shapes" in prose
    assert f"where `default` closes {share['table_shapes', 'default']}" in prose


def test_the_speeds_of_training_are_the_result() -> None:
    result = _file("training_speed")
    goals = {goal["name"]: goal["value"] for goal in result["goals"]}
    names = {"ViT-B/16": "vit_base_patch16_224", "ViT-S/16": "vit_small_patch16_224", "the tiny one": "tiny"}
    ((_, *lines),) = _tables("docs/accuracy.md", "How fast it trains")
    assert [line[0] for line in lines] == list(names)
    for label, align, align_more, distill in lines:
        name = names[label]
        assert align.removesuffix(" times as fast") == f"{goals[f'align, {name}: published form / ours']}"
        assert any(row["student"] == name and f"{align_more} times as fast" in row["form"] for row in result["rows"])
        assert distill == f"{goals.get(f'distill step, {name}: online / ours', '')}"
