"""What the client remembers of vendors: the key it trusted first, the model it saw last, the chain it audited."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vl2v_client.cache.database import Database
from vl2v_client.core.errors import VendorChanged
from vl2v_client.core.values import PriceTag, TeacherModel
from vl2v_contract.records import PublicKey


@dataclass(frozen=True, slots=True)
class AuditedHead:
    """The end of an account's chain when it was last audited."""

    seq: int
    entry_hash: str


class VendorBook:
    """Pins and memories, over the cache's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def first_key(self, ledger_id: str) -> str | None:
        """Return the Base64 text of the signing key that this vendor showed when first met."""
        rows = self._database.rows("SELECT first_key FROM vendors WHERE ledger_id = ?", (ledger_id,))
        return str(rows[0][0]) if rows else None

    def keys(self, ledger_id: str) -> tuple[PublicKey, ...]:
        """Return the public keys as last checked, oldest first; none if the vendor is new."""
        rows = self._database.rows("SELECT keys_json FROM vendors WHERE ledger_id = ?", (ledger_id,))
        return tuple(PublicKey(**record) for record in json.loads(rows[0][0])) if rows else ()

    def remember_keys(self, ledger_id: str, keys: Sequence[PublicKey]) -> None:
        """Pin the first key, for ever, and keep the whole checked line, which can only grow.

        Raises:
            VendorChanged: The vendor publishes another successor of a key than it did before.
        """
        known = self.keys(ledger_id)
        for before, now in zip(known, keys, strict=False):
            if before.public_key != now.public_key:
                raise VendorChanged(
                    f"vendor {ledger_id} publishes signing key {now.key_id} where it had published {before.key_id}: "
                    "one of its lines of keys is false; do not buy until the vendor has explained it"
                )
        if tuple(keys) == known or len(keys) < len(known):  # another process has seen a newer key meanwhile
            return
        line = json.dumps([asdict(key) for key in keys], separators=(",", ":"))
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO vendors (ledger_id, first_key, keys_json) VALUES (?, ?, ?)"
                " ON CONFLICT (ledger_id) DO UPDATE SET keys_json = excluded.keys_json",
                (ledger_id, keys[0].public_key, line),
            )

    def images_per_second(self, ledger_id: str) -> float | None:
        """Return how fast this vendor delivered last time; None if never measured."""
        rows = self._database.rows("SELECT images_per_second FROM vendors WHERE ledger_id = ?", (ledger_id,))
        return None if not rows or rows[0][0] is None else float(rows[0][0])

    def remember_rate(self, ledger_id: str, images_per_second: float) -> None:
        """Keep a measured rate for the next plan's estimate."""
        with self._database.write() as connection:
            query = "UPDATE vendors SET images_per_second = ? WHERE ledger_id = ?"
            connection.execute(query, (images_per_second, ledger_id))

    def teacher(self, url: str, asked_for: str | None) -> TeacherModel | None:
        """Return the model that `url` showed last under this name."""
        rows = self._database.rows(
            "SELECT teacher_json FROM teachers WHERE url = ? AND asked_for = ?", (url, asked_for or "")
        )
        return _teacher(json.loads(rows[0][0])) if rows else None

    def remember_teacher(self, url: str, asked_for: str | None, teacher: TeacherModel) -> None:
        """Keep what `url` shows now, to notice a change and to work without the vendor."""
        if self.teacher(url, asked_for) == teacher:
            return
        with self._database.write() as connection:
            text = json.dumps(asdict(teacher), separators=(",", ":"))
            connection.execute("INSERT OR REPLACE INTO teachers VALUES (?, ?, ?)", (url, asked_for or "", text))

    def audited_head(self, ledger_id: str, account_id: str) -> AuditedHead | None:
        """Return the end of the chain that the next statement must extend."""
        query = "SELECT seq, entry_hash FROM audited_heads WHERE ledger_id = ? AND account_id = ?"
        rows = self._database.rows(query, (ledger_id, account_id))
        return AuditedHead(*rows[0]) if rows else None

    def pin_head(self, ledger_id: str, account_id: str, head: AuditedHead) -> None:
        """Keep the end of a chain that was verified element by element."""
        with self._database.write() as connection:
            row = (ledger_id, account_id, head.seq, head.entry_hash)
            connection.execute("INSERT OR REPLACE INTO audited_heads VALUES (?, ?, ?, ?)", row)


def _teacher(record: dict[str, Any]) -> TeacherModel:
    prices = {name: PriceTag(**record[name]) for name in ("image_price", "text_price")}
    return TeacherModel(**{**record, **prices})
