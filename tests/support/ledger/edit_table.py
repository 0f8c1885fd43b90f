"""The table of who notices which edit of a ledger: its file, what is accepted by name, and its page."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).parents[3]
FILE = ROOT / "docs" / "data" / "ledger-edits.csv"
PAGE = ROOT / "docs" / "data" / "edited-ledgers.md"
BEGIN = "<!-- the table: written by the test that compares it -->"
FORBIDDEN = "the schema refuses it"


@dataclass(frozen=True)
class Line:
    """One edit and who notices it. `verify` and `buyer` are names apart by spaces, or a refusal; `accepted` a name."""

    table: str
    row: str
    edit: str
    column: str
    verify: str
    buyer: str
    accepted: str = ""

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What names the edit."""
        return self.table, self.row, self.edit, self.column


ACCEPTED: Mapping[str, str] = {
    "retention": "a vector that is deleted before its time, or kept for another time: it is computed again, free",
    "float32": "a kept number that differs by less than the float16 of which a receipt has the hash",
    "fingerprint": "the fingerprint of a paid item: its content is refused under its item key, and costs nothing",
    "row-number": "a number that names a row and that nothing refers to",
    "no-use": "the end of a chain in a key's budget, where it is of no use",
    "founding": "the time at which the vendor or its first key was made: nothing is computed from it",
    "newest-acts": "the newest acts of the staff deleted with all that they did, before anybody was shown it: no later "
    "act, signature or published head tells of them; keep copies of the staff's log elsewhere",
}
"""What neither side notices, and why that is borne."""

_NAMES = {
    ("results", "expires_at"): "retention",
    ("charge_items", "fingerprint"): "fingerprint",
    ("budgets", "id"): "row-number",
    ("vendor", "id"): "row-number",
    ("budgets", "last_seq"): "no-use",
    ("budgets", "head_hash"): "no-use",
    ("budgets", "last_created_at"): "no-use",
    ("vendor", "created_at"): "founding",
    ("signing_keys", "created_at"): "founding",
    ("results", "deleted"): "retention",
    ("results", "a number differs by less than a float16 shows"): "float32",
    ("ledger", "all that came after the published head is deleted, and the end made to fit"): "newest-acts",
}
"""Name under which an edit is accepted, by table and column, or edit of a whole row."""


def line_of(place: tuple[str, str, str, str], verify: Iterable[str], buyer: Iterable[str]) -> Line:
    """Return the line of an edit, with the name under which it is accepted where neither side notices."""
    table, _, what, column = place
    said = " ".join(verify), " ".join(buyer)
    return Line(*place, *said, "" if any(said) else _NAMES.get((table, column or what), ""))


def read_lines() -> list[Line]:
    """Read the table."""
    with FILE.open(newline="", encoding="utf-8") as file:
        return [Line(**row) for row in csv.DictReader(file)]


def write_lines(lines: Iterable[Line]) -> None:
    """Write the table and its page."""
    lines = list(lines)
    with FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Line))
        writer.writerows(astuple(line) for line in lines)
    before, mark, _ = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    assert mark, f"{PAGE} has no line {BEGIN}"
    PAGE.write_text(f"{before}{BEGIN}\n\n{render(lines)}", encoding="utf-8")


def render(lines: Iterable[Line]) -> str:
    """Return the tables of the page: edits of a row that the same checks notice share a line."""
    grouped: dict[str, dict[tuple[str, str, str, str], list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        grouped[line.table][line.row, line.verify, line.buyer, line.accepted].append(line)
    parts = [f"- **{name}**: {why}." for name, why in ACCEPTED.items()]
    text = "## What is accepted\n\n" + "\n".join(parts) + "\n"
    for table, groups in grouped.items():
        head = f"\n## `{table}`\n\n| row | edit | `ledger verify` | the buyer's `audit` |\n|---|---|---|---|\n"
        text += head + "".join(_row(key, found) for key, found in groups.items())
    return text


def _row(key: tuple[str, str, str, str], lines: Iterable[Line]) -> str:
    row, verify, buyer, accepted = key
    edits: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        edits[line.edit] += [f"`{line.column}`"] if line.column else []
    what = "; ".join(f"{edit} {', '.join(columns)}".strip() for edit, columns in edits.items())
    noticed = f"**{accepted}** | " if accepted else f"{_said(verify)} | {_said(buyer)}"
    return f"| {row} | {what} | {noticed} |\n"


def _said(names: str) -> str:
    return names if names == FORBIDDEN or names.startswith("refused") else names.replace(" ", ", ")
