"""Customers of a live vendor over plain HTTP: what they order, what they are told, and the bill that they get."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine

from support.ledger.ledger_shop import item_key
from vl2v_contract.chain import GENESIS_HASH, ChargedItem, LedgerEntry, items_hash
from vl2v_contract.identity import canonical_json
from vl2v_contract.records import receipt_message, verify
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, Account
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts

SALE_PATH = "/v1/embeddings/texts"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the vendor said, and after how long."""

    status: int
    body: Document
    retry_after: str | None
    seconds: float

    @property
    def receipt(self) -> Document | None:
        receipt: Document | None = self.body.get("receipt")
        return receipt

    @property
    def delivered(self) -> list[Document]:
        """The items that came with a vector."""
        return [item for item in self.body.get("data", []) if item["embedding"] is not None]


@dataclass(frozen=True, slots=True)
class Bill:
    """An account's whole statement, and the keys that sign for it."""

    entries: list[Document]
    head: Document
    public_keys: dict[str, str]

    @property
    def charges(self) -> list[Document]:
        return [row for row in self.entries if row["entry"]["kind"] == "charge"]

    @property
    def charged_keys(self) -> Counter[str]:
        """How often each item key was charged."""
        return Counter(item["item_key"] for row in self.entries for item in row["items"])

    def count_breaks(self) -> int:
        """Entries that do not follow from the one before, that hash to something else, or whose items do."""
        breaks, hashed = 0, GENESIS_HASH
        for number, row in enumerate(self.entries, 1):
            entry = LedgerEntry(**row["entry"])
            items = [ChargedItem(**item) for item in row["items"]]
            is_whole = entry.hash() == row["entry_hash"] and (
                entry.kind != "charge" or items_hash(items) == entry.items_hash
            )
            breaks += not (is_whole and (entry.seq, entry.prev_hash) == (number, hashed))
            hashed = row["entry_hash"]
        return breaks + int(hashed != self.head["entry_hash"])

    def count_lost(self, receipts: Iterable[Document]) -> int:
        """Receipts that are not in the statement byte for byte, or not signed."""
        return sum(not self._holds(receipt) for receipt in receipts)

    def _holds(self, receipt: Document) -> bool:
        seq = receipt["entry"]["seq"]
        if not 0 < seq <= len(self.entries):
            return False
        row = self.entries[seq - 1]
        return (
            canonical_json(row["entry"]) == canonical_json(receipt["entry"])
            and row["entry_hash"] == receipt["entry_hash"]
            and verify(
                self.public_keys[receipt["key_id"]], receipt_message(receipt["entry_hash"]), receipt["signature"]
            )
        )


class Customer:
    """The bearer of one API key. A dead connection is httpx's `TransportError`."""

    def __init__(self, url: str, secret: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {secret}"}, timeout=30, trust_env=False, verify=False
        )

    async def __aenter__(self) -> Customer:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._http.aclose()

    async def order(self, names: Sequence[str], *, allow_partial: bool = False) -> Answer:
        """Buy one text for each name, under item keys made of the names."""
        items = [{"text": name, "item_key": item_key(name)} for name in names]
        return await self._post(SALE_PATH, {"items": items, "allow_partial": allow_partial})

    async def order_unnamed(self, names: Sequence[str]) -> Answer:
        """Buy one text for each name, without item keys and without an `Idempotency-Key`."""
        return await self._post(SALE_PATH, {"items": [{"text": name} for name in names]})

    async def replay(self, item_keys: Sequence[str]) -> Answer:
        """Fetch again what was paid."""
        return await self._post("/v1/embeddings/replay", {"item_keys": list(item_keys)})

    async def get(self, path: str) -> Answer:
        began = time.monotonic()
        return _answer(await self._http.get(path), began)

    async def bill(self) -> Bill:
        entries: list[Document] = []
        after: int | None = 0
        page: Document = {}
        while after is not None:
            page = (await self.get(f"/v1/billing/statement?after_seq={after}")).body
            entries += page["entries"]
            after = page["next_after_seq"]
        keys = (await self.get("/v1/billing/keys")).body["keys"]
        return Bill(entries, page["signed_head"]["head"], {key["key_id"]: key["public_key"] for key in keys})

    async def _post(self, path: str, body: Document) -> Answer:
        began = time.monotonic()
        return _answer(await self._http.post(path, json=body), began)


def open_accounts(engine: Engine, home: Path) -> SqlAccounts:
    """The staff's desk beside a running vendor whose secrets are in `home`; makes them if the vendor has not yet."""
    signer = load_or_create_secrets(home / "vendor-secrets.json").signer()
    return SqlAccounts(engine, signer=signer, clock=SystemClock())


def new_key(accounts: SqlAccounts, account: Account, *, limit_units: int | None = None) -> str:
    """The secret of a new API key that may buy and read the bill."""
    _, secret = accounts.create_key(account, scopes=DEFAULT_SCOPES, limit_units=limit_units)
    assert secret is not None
    return secret


def _answer(response: httpx.Response, began: float) -> Answer:
    return Answer(response.status_code, response.json(), response.headers.get("Retry-After"), time.monotonic() - began)
