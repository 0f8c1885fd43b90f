"""An honest vendor's books in the hands of a liar: a transport that changes what the audit surface shows.

A lie changes a copy of the truth at every request, and the changed books are shown page by page. `reseal` makes them
consistent again and signs them with the vendor's own keys, as a lying vendor can.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from vl2v_contract.chain import GENESIS_HASH, ChargedItem, LedgerEntry, items_hash
from vl2v_contract.records import SigningKey, head_message, receipt_message

Body = dict[str, Any]
PAGE_ENTRIES = 4


@dataclass
class Books:
    """All that the vendor shows of an account, for a lie to change.

    Attributes:
        rows: the statement's entries, as wire bodies, each with its `signature`.
        turn: changes a page that is about to be shown; the number of entries before it is its second argument.
        keys: private signing keys, oldest first.
    """

    rows: list[Body]
    head: Body
    signature: str
    summary: Body
    public_keys: Body
    keys: list[SigningKey]
    turn: Callable[[Body, int], Body] = field(default=lambda page, _after: page)

    def entry(self, index: int) -> Body:
        entry: Body = self.rows[index]["entry"]
        return entry

    def last(self, kind: str, *, api_key_id: str | None = None, before: int | None = None) -> int:
        """Index of the last entry of a kind, made with that key if one is named."""
        for index in reversed(range(len(self.rows) if before is None else before)):
            entry = self.entry(index)
            if entry["kind"] == kind and api_key_id in (None, entry["api_key_id"]):
                return index
        raise LookupError(kind)

    def add(self, like: int, **changes: object) -> Body:
        """Append an entry made after another one's pattern; returns its row."""
        row: Body = json.loads(json.dumps(self.rows[like]))
        row["entry"] |= {"request_id": f"req_{len(self.rows)}", **changes}
        row["entry"]["created_at"] = self.entry(-1)["created_at"]
        self.rows.append(row)
        return row

    def reseal(self, *, totals: bool = True, numbers: bool = True) -> None:
        """Make everything consistent: numbers, running totals, hashes, the head's signature and the summary."""
        before = GENESIS_HASH
        sums = {"used": 0, "limit": 0, "units": 0, "amount": 0}
        for number, row in enumerate(self.rows, 1):
            entry = row["entry"]
            _add_up(sums, entry)
            if numbers:
                entry["seq"] = number
            if totals:
                entry |= {"used_units": sums["used"], "limit_units": sums["limit"]}
            items = [ChargedItem(**item) for item in row["items"]]
            entry |= {"items_hash": items_hash(items) if items else None, "prev_hash": before}
            before = row["entry_hash"] = LedgerEntry(**entry).hash()
            row["signature"] = self.signer_of(entry).sign(receipt_message(before))
        self.sign_head()
        self.summary |= {
            "used_units": self.head["used_units"],
            "limit_units": self.head["limit_units"],
            "remaining_units": self.head["limit_units"] - self.head["used_units"],
            "total": {"units": sums["units"], "amount_micro": sums["amount"]},
            "head_seq": self.head["seq"],
            "head_hash": self.head["entry_hash"],
        }

    def sign_head(self, signer: SigningKey | None = None, **changes: object) -> None:
        """A head for the last entry, by the key in use."""
        key, end = signer or self.keys[-1], self.rows[-1]
        place = {name: end["entry"][name] for name in ("seq", "used_units", "limit_units")}
        self.head |= {**place, "entry_hash": end["entry_hash"], "key_id": key.key_id, **changes}
        self.signature = key.sign(head_message(self.head))

    def signer_of(self, entry: Body) -> SigningKey:
        """The key that an entry names, or the one in use."""
        return next((key for key in self.keys if key.key_id == entry["signing_key_id"]), self.keys[-1])

    def page(self, after: int) -> Body:
        shown = self.rows[after : after + PAGE_ENTRIES]
        following = after + PAGE_ENTRIES if after + PAGE_ENTRIES < len(self.rows) else None
        signed = {"head": self.head, "signature": self.signature}
        entries = [{name: value for name, value in row.items() if name != "signature"} for row in shown]
        signatures = {"signatures": [row["signature"] for row in shown]}
        return self.turn({"entries": entries, "signed_head": signed, "next_after_seq": following, **signatures}, after)


Lie = Callable[[Books], None]


@dataclass(frozen=True)
class Truth:
    """What an honest vendor shows of an account, as JSON, and its private signing keys, oldest first."""

    statement: bytes
    summary: bytes
    public_keys: bytes
    keys: list[SigningKey]

    @classmethod
    def read(cls, http: httpx.Client, keys: list[SigningKey]) -> Truth:
        def get(path: str) -> bytes:
            return http.get(f"/v1/billing/{path}").raise_for_status().content

        return cls(get("statement?signed=true"), get("summary"), get("keys"), keys)

    def books(self) -> Books:
        statement = json.loads(self.statement)
        assert statement["next_after_seq"] is None
        signed = statement["signed_head"]
        for row, signature in zip(statement["entries"], statement["signatures"], strict=True):
            row["signature"] = signature
        others = (json.loads(self.summary), json.loads(self.public_keys))
        return Books(statement["entries"], signed["head"], signed["signature"], *others, self.keys)


class LyingVendor(httpx.BaseTransport):
    """Shows an honest vendor's books through a lie; everything else passes unchanged."""

    def __init__(self, honest: httpx.BaseTransport, truth: Truth, lie: Lie) -> None:
        self._honest = honest
        self._truth = truth
        self._lie = lie

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        room, _, name = request.url.path.rpartition("/")
        if room != "/v1/billing" or name not in ("statement", "summary", "keys"):
            return self._honest.handle_request(request)
        books = self._truth.books()
        self._lie(books)
        parts = {"summary": books.summary, "keys": books.public_keys}
        shown = parts.get(name) or books.page(int(request.url.params.get("after_seq", 0)))
        return httpx.Response(200, content=json.dumps(shown).encode(), request=request)


def _add_up(sums: dict[str, int], entry: Body) -> None:
    sign = {"charge": 1, "refund": -1}.get(entry["kind"], 0)
    sums["used"] += sign * entry["units"]
    sums["units"] += sign * entry["units"]
    sums["amount"] += sign * entry["amount_micro"]
    sums["limit"] += entry["units"] if entry["kind"] == "topup" else 0
