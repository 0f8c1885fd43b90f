"""Every number of the documents' accuracies is the one that a benchmark wrote, in its row and column."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from support.accuracy_pages import (
    COLUMNS,
    GAP,
    ROOT,
    SETTINGS,
    accuracy_result,
    in_one_line,
    recorded_runs,
    result_file,
    section_of,
    tables_of,
)
from support.figures import numbers_of_prose, without_source

INTERVAL = re.compile(r"[+-]\d+\.\d+ \([+-]\d+\.\d+ to [+-]\d+\.\d+\)")
OLDER = "Photographs at 96 pixels"
PAGES = {
    ("docs/benchmarks.md", "Accuracy on an unseen domain"): ("gap_pacs-128", "table_shapes"),
    ("docs/accuracy.md", GAP): ("gap_pacs-128",),
    ("docs/accuracy.md", OLDER): ("table_pacs",),
    ("docs/accuracy.md", "Drawings: shapes"): ("table_shapes",),
    ("docs/accuracy.md", "Methods and plans, on development styles"): ("methods_development", "plans_development"),
}
"""Page and section: the results that its tables show, in order."""
GOALS = {
    "default at least 3 above ERM": "default above ERM",
    "default at least 1 above VL2V-ADiP at equal queries": "default above VL2V-ADiP at equal queries",
    "K=1 within 1.0 of online": "K=1 below online",
    "K=4 within 0.5 of online": "K=4 below online",
    "a quarter of the queries within 1.0 of K=1": "25 % of the queries below K=1",
    "thorough closes at least 50 % of the gap": "gap closed by thorough, K=4",
    "default closes a part of the gap": "gap closed by default, K=4",
    "thorough without soft labels closes a part of the gap": "gap closed by thorough without soft labels, K=4",
    "default without soft labels closes a part of the gap": "gap closed by default without soft labels, K=4",
    "default, K=1, any view closes a part of the gap": "gap closed by default, K=1, any view",
    "default, 25 % of K=1, any view closes a part of the gap": "gap closed by default, 25 % of K=1, any view",
    "default, K=1 closes a part of the gap": "gap closed by default, K=1",
    "default, 25 % of K=1 closes a part of the gap": "gap closed by default, 25 % of K=1",
    "default, the loss that its sources choose closes a part of the gap": "gap closed by default, the loss that its "
    "sources choose, K=4",
    "VL2V-ADiP closes a part of the gap": "gap closed by VL2V-ADiP, K=4",
    "VL2Lite closes a part of the gap": "gap closed by VL2Lite, K=4",
}
"""Goal in a document: its name in the result without the unit, where they differ."""
STYLES = ("photo", "cartoon", "sketch", "painting")
PROSE: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "What holds for which table": ((), {"128", "224"}),  # pixels
    "How it is measured": ((), {"1", "95", "96", "128"}),  # of the statistics; pixels
    GAP: (
        ("accuracy_gap_pacs-128",),
        {"0.5", "1,700", "500", "61.9", "66.2", "68", "69.3", "72", "72.6", "77.0", "81.9"},
    ),  # normalisation; steps; one seed, tested below
    SETTINGS: (
        ("accuracy_settings_pacs-128", "accuracy_gap_pacs-128"),
        {
            "0.1",
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
            "72.5",
            "73.3",
            "74.1",
            "75.7",
            "76.3",
            "77.5",
            "77.7",
            "78.2",
            "78.9",
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


def _row(result: dict[str, Any], label: str) -> dict[str, Any]:
    """The row of a result that a table's label names."""
    name = label.partition(":")[0]
    (row,) = (row for row in result["rows"] if row[""] in (name, f"VL2V-ADiP, {name}"))
    return dict(row)


def _text(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


@pytest.mark.parametrize(("page", "section"), PAGES)
def test_each_cell_is_that_of_its_row_and_column(page: str, section: str) -> None:
    tables = [table for table in tables_of(page, section) if "queries" in table[0]]
    for (header, *lines), name in zip(tables, PAGES[page, section], strict=True):
        result = accuracy_result(name)
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
    (result,) = (accuracy_result(name) for name in PAGES[page, section])
    wanted = {goal["name"].removesuffix(", points"): goal["value"] for goal in result["goals"]}
    (lines,) = (lines for header, *lines in tables_of(page, section) if header[-1] == "verdict")
    shown = {
        name.removesuffix(", points"): f"{measured.replace(' below', '')}: {verdict}"
        for name, measured, verdict in lines
    }
    assert {GOALS.get(name, name): value for name, value in shown.items()} == wanted


@pytest.mark.parametrize("section", PROSE)
def test_each_number_of_the_prose_is_in_a_result_or_a_setting(section: str) -> None:
    names, settings = PROSE[section]
    found = numbers_of_prose(section_of("docs/accuracy.md", section))
    assert without_source(found, [result_file(name) for name in names]) <= settings
    assert settings <= set(found), "a number that no longer stands there"


def test_all_sections_of_the_page_are_tested() -> None:
    headings = re.findall(r"^## (.*)$", (ROOT / "docs/accuracy.md").read_text(), re.MULTILINE)
    assert headings == list(PROSE)


@pytest.mark.parametrize("page", ["docs/benchmarks.md", "docs/accuracy.md"])
def test_each_interval_in_the_prose_is_a_result_s(page: str) -> None:
    results = [accuracy_result(name) for name in ("table_pacs", "table_shapes", "gap_pacs-128")]
    known = set(INTERVAL.findall(json.dumps(results)))
    found = INTERVAL.findall(in_one_line((ROOT / page).read_text()))
    assert set(found) <= known
    assert len(found) > 3


@pytest.mark.parametrize(
    ("page", "section"), [place for place, names in PAGES.items() if "gap_pacs-128" in names] + [("README.md", None)]
)
def test_the_figures_of_pacs_name_their_teacher(page: str, section: str | None) -> None:
    text = (ROOT / page).read_text()
    body = text.split("\n## ", 1)[0] if section is None else section_of(page, section)
    assert "stand-in for CLIP" in in_one_line(body)
    if section is not None:
        assert "the unseen one included" in in_one_line(body)
        assert "EfficientNet-lite0" in body


@pytest.mark.parametrize("name", ["table_pacs", "gap_pacs-128"])
def test_the_result_of_pacs_names_its_teacher(name: str) -> None:
    notes = " ".join(accuracy_result(name)["notes"])
    assert "stand-in for CLIP" in notes
    assert "the unseen one included" in notes


@pytest.mark.parametrize("name", ["pacs", "pacs-128", "shapes", "development"])
def test_each_run_is_recorded_once_and_its_accuracy_is_a_count_of_its_pictures(name: str) -> None:
    runs = recorded_runs(name)
    assert len({(run["row"], run["options"], run["target"], run["seed"]) for run in runs}) == len(runs)
    for outcome in runs:
        right = outcome["accuracy"] * outcome["test_images"]
        assert right == pytest.approx(round(right), abs=1e-6)
        if outcome.get("right"):
            assert outcome["right"].count("1") == round(right)
            assert len(outcome["right"]) == outcome["test_images"]


def test_the_curve_s_table_is_the_result() -> None:
    rows = {row[""]: row for row in accuracy_result("curve_shapes")["rows"]}
    header, *lines = tables_of("docs/accuracy.md", "Drawings: shapes")[-1]
    assert [line[0] for line in lines] == ["queries", "VL2V-ADiP", "default"]
    for column, shown in enumerate(header[1:], start=1):
        point = f"{shown} of K=1" if shown.endswith("%") else shown
        assert lines[0][column] == f"{rows[f'default, {point}']['queries']:,}", shown
        for name, *cells in lines[1:]:
            assert cells[column - 1] == rows[f"{name}, {point}"]["all"], (name, shown)


def test_what_the_demo_s_gain_is_compared_with_is_the_result() -> None:
    rows = {row[""]: row for row in accuracy_result("table_shapes")["rows"]}
    mean = {name: {style: float(row[style].split()[0]) for style in STYLES} for name, row in rows.items()}
    gains = {style: mean["VL2V-ADiP, K=4"][style] - mean["ERM"][style] for style in STYLES}
    prose = in_one_line(section_of("docs/accuracy.md", "Drawings: shapes"))
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
        gap = float(_row(accuracy_result(name), "zero-shot teacher")["over ERM"].split()[0])
        gains = {goal["name"]: float(goal["value"].split()[0]) for goal in accuracy_result(name)["goals"]}
        for row in ("VL2V-ADiP", "default"):
            share[name, row] = f"{100 * gains[f'{row} above ERM, points'] / gap:.0f} %"
    prose = in_one_line(section_of("docs/accuracy.md", "What the tables say"))
    assert f"it closes {share['table_pacs', 'VL2V-ADiP']} of the gap between ERM and the teacher on PACS" in prose
    assert f"and {share['table_shapes', 'VL2V-ADiP']} on shapes" in prose
    assert f"where `default` closes {share['table_shapes', 'default']}" in prose


def test_the_speeds_of_training_are_the_result() -> None:
    result = result_file("training_speed")
    goals = {goal["name"]: goal["value"] for goal in result["goals"]}
    names = {"ViT-B/16": "vit_base_patch16_224", "ViT-S/16": "vit_small_patch16_224", "the tiny one": "tiny"}
    ((_, *lines),) = tables_of("docs/accuracy.md", "How fast it trains")
    assert [line[0] for line in lines] == list(names)
    for label, align, align_more, distill in lines:
        name = names[label]
        assert align.removesuffix(" times as fast") == f"{goals[f'align, {name}: published form / ours']}"
        assert any(row["student"] == name and f"{align_more} times as fast" in row["form"] for row in result["rows"])
        assert distill == f"{goals.get(f'distill step, {name}: online / ours', '')}"
