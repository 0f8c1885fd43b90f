"""Every number of docs/paper.md is in the file of the paper's numbers, and every one of the file is on the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from paper_table import read_paper
from published_data import published_sets

PAGE = (Path(__file__).parents[2] / "docs" / "paper.md").read_text()
SECTIONS = {
    "Black box": "black box",
    "White box": "white box",
    "Other teachers": "other teachers",
    "Which embedding classifies": "classifier",
}
"""Heading: name of the table."""
ROWS = {table["name"]: table["rows"] for table in read_paper()["tables"]}


def _cells(line: str) -> list[str]:
    return [cell.strip(" *") for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("heading", SECTIONS)
def test_each_table_is_that_of_the_file(heading: str) -> None:
    body = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    header, _, *lines = [_cells(line) for line in body.splitlines() if line.startswith("|")]
    shown = {name: dict(zip(header[1:], cells, strict=True)) for name, *cells in lines}
    wanted = {
        row["row"]: {
            column: f"{row['percent'][column]:.2f}" if column in row["percent"] else "" for column in header[1:]
        }
        for row in ROWS[SECTIONS[heading]]
    }
    assert shown == wanted
    assert set(header[1:]) == {column for row in ROWS[SECTIONS[heading]] for column in row["percent"]}


def test_all_tables_are_on_the_page_and_their_means_are_of_their_columns() -> None:
    assert set(SECTIONS.values()) == set(ROWS)
    for rows in ROWS.values():
        for row in rows:
            cells = row["percent"]
            of_sets = [cells[name] for name in published_sets() if name in cells]
            mean = cells.get("mean", cells.get("mean unseen"))
            assert mean == pytest.approx(sum(of_sets) / len(of_sets), abs=0.02), row["row"]


def test_the_prose_quotes_the_files() -> None:
    words = " ".join(PAGE.split())
    source = re.sub(r"[`\[\]()]", "", words)
    for part in read_paper()["source"].replace("; the authors' project page", "").split(", "):
        assert part in source
    black, classifier = (
        {row.get("ours"): row["percent"]["PACS"] for row in ROWS[name]} for name in ("black box", "classifier")
    )
    share = (black["VL2V-ADiP"] - black["ERM"]) / (classifier["zero-shot teacher"] - black["ERM"])
    assert f"On PACS VL2V-ADiP closes {100 * share:.0f} % of the distance" in words
    assert f"removes {published_sets()['DomainNet'].duplicates:,} duplicates" in words
