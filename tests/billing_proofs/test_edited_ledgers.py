"""Every edit of every table: who notices it, `ledger verify`, the buyer's audit or both; nothing passes both unnamed.

The suite tries all edits of several rows and a quarter of the others, `--full` all of them. `--write-edits` beside it
writes what is found as the table and its page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.ledger.edit_table import ACCEPTED, FORBIDDEN, PAGE, Line, line_of, read_lines, render, write_lines
from support.ledger.edited_books import EditedBooks, edited_books
from support.ledger.ledger_edits import Edit, all_edits
from support.ledger.named_edits import named_edits


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, migrated_sqlite: Path) -> Iterator[EditedBooks]:
    with edited_books(tmp_path_factory.mktemp("books"), migrated_sqlite) as served:
        yield served


@pytest.fixture(scope="module")
def edits(books: EditedBooks) -> list[Edit]:
    return sorted([*all_edits(books.truth), *named_edits()], key=lambda edit: edit.table)


def judged(books: EditedBooks, edit: Edit, folder: Path) -> Line:
    try:
        noticed = books.judge(edit.make, folder)
    except sqlite3.IntegrityError:
        return line_of(edit.place, [FORBIDDEN], [])
    return line_of(edit.place, noticed.verify, noticed.buyer)


@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # a version of entries that there is not
def test_who_notices_each_edit_is_as_the_table_says(
    books: EditedBooks,
    edits: list[Edit],
    scale: Callable[[int, int], int],
    pytestconfig: pytest.Config,
    tmp_path: Path,
) -> None:
    assert books.verify() == books.audit(tmp_path) == ()
    tried = [edit for number, edit in enumerate(edits) if not edit.row or number % scale(4, 1) == 0]
    found = {edit.place: judged(books, edit, tmp_path) for edit in tried}
    if pytestconfig.getoption("--write-edits"):
        assert len(found) == len(edits), "only --full writes the table"
        write_lines(found.values())
    table = {line.place: line for line in read_lines()}
    assert [(line, table.get(line.place)) for line in found.values() if line != table.get(line.place)] == []
    assert books.verify() == books.audit(tmp_path) == ()


def test_the_table_has_every_edit_of_the_schema(edits: list[Edit]) -> None:
    assert [line.place for line in read_lines()] == [edit.place for edit in edits]


def test_what_neither_notices_is_accepted_by_name() -> None:
    unnoticed = {line.place: line.accepted for line in read_lines() if not (line.verify or line.buyer)}
    assert [place for place, name in unnoticed.items() if name not in ACCEPTED] == []
    assert set(unnoticed.values()) == set(ACCEPTED)


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8").endswith(f"\n\n{render(read_lines())}")
