"""A ledger with a row of everything behind a running vendor, edits of it, and who notices each."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.ledger.honest_books import BATCH, MODEL, Party, texts
from support.ledger.ledger_edits import edit
from support.vendor.vendor_in_process import InProcessVendor, open_vendor, vendor_settings
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import ClientError
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, Account
from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.keys.published_heads import HeadsFile, PublishedHead
from vl2v_vendor.ledger_sql.account_rows import post_restored
from vl2v_vendor.ledger_sql.admin_acts import Act
from vl2v_vendor.ledger_sql.key_publication import rotate_and_publish
from vl2v_vendor.ledger_sql.migrations import upgrade
from vl2v_vendor.ledger_sql.reading import read_ledger_id, snapshot
from vl2v_vendor.ledger_sql.restoration import find_lost
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.settings import Settings


@dataclass(frozen=True)
class Noticed:
    """What `ledger verify` and the buyer's audit say: names of problems and differences, or of a refusal."""

    verify: tuple[str, ...]
    buyer: tuple[str, ...]


@dataclass(frozen=True)
class EditedBooks:
    """A running vendor, the buyer, and the ledger as it was.

    Attributes:
        path: The vendor's database.
        truth: A copy of it.
        heads: The published heads, which are kept outside of it.
        buyer: The buyer, whose cache has receipts, vectors and the head of an audit in the middle of the ledger.
    """

    vendor: InProcessVendor
    path: Path
    truth: sqlite3.Connection
    heads: dict[str, PublishedHead]
    buyer: Party

    def judge(self, make: Callable[[sqlite3.Connection], None], folder: Path) -> Noticed:
        """Make an edit under the running server, ask both sides, and undo it."""
        try:
            edit(self.path, make)
            return Noticed(self.verify(), self.audit(folder))
        finally:
            self.restore()

    def restore(self) -> None:
        """Bring the database back to what it was."""
        with closing(sqlite3.connect(self.path)) as live:
            self.truth.backup(live)

    def verify(self) -> tuple[str, ...]:
        """Say what `ledger verify` finds."""
        try:
            upgrade(self.vendor.engine)
            with snapshot(self.vendor.engine) as connection:
                report = verify_ledger(connection)
            found = {problem.code for problem in report.problems}
            found |= {"published_entry_lost" for _ in find_lost(self.vendor.engine, self.heads)}
        except VendorError as error:
            return (f"refused: {type(error).__name__}",)
        return tuple(sorted(found))

    def audit(self, folder: Path) -> tuple[str, ...]:
        """Say what the buyer's audit finds of the statement that is served now, with a copy of what he kept."""
        copy = folder / "buyer.db"
        shutil.copy(self.buyer.cache, copy)
        try:
            with EmbeddingCache(copy) as cache, self.buyer.connect(self.vendor.transport) as client:
                report = audit_bill(client, cache, settle_seconds=0)
        except ClientError as error:
            return (f"refused: {type(error).__name__}",)
        others = ["other_software"] if report.other_software.items else []
        return tuple(sorted([*map(str, report.findings.counts), *others]))


def write_ledger(home: Path, migrated_sqlite: Path) -> tuple[Settings, Party]:
    """Let a vendor, its staff and three customers make a ledger with a row of everything; the buyer audits midway."""
    settings = vendor_settings(home / "vendor", migrated_sqlite, max_items=BATCH)
    with open_vendor(settings) as vendor:
        staff = vendor.accounts
        account, other = (staff.create_account(name, budget_units=100) for name in ("acme", "globex"))
        made = [staff.create_key(account, scopes=DEFAULT_SCOPES, limit_units=limit) for limit in (None, 50)]
        made.append(staff.create_key(other, scopes=DEFAULT_SCOPES))
        buyer, colleague, stranger = (Party(str(secret), home / f"{key.id}.db") for key, secret in made)
        ended, _ = staff.create_key(account, scopes=DEFAULT_SCOPES, lifetime_seconds=3600, name="ended")
        staff.revoke_key(ended.id)
        buyer.buy(vendor, texts("first", 2 * BATCH))
        colleague.buy(vendor, texts("colleague", BATCH))
        staff.refund(account, 3, 2, "sorry")
        staff.top_up(account, 50)
        staff.set_price(MODEL, "text", 20, "EUR")
        buyer.buy(vendor, texts("dearer", BATCH))
        rotate_and_publish(vendor.engine, settings.secrets_path)
    with open_vendor(settings) as vendor:
        stranger.buy(vendor, texts("stranger", BATCH))
        buyer.buy(vendor, texts("newly signed", BATCH))
        _acknowledge(vendor, account)
        with EmbeddingCache(buyer.cache) as cache, buyer.connect(vendor.transport) as client:
            assert audit_bill(client, cache, settle_seconds=0).is_clean
        colleague.buy(vendor, texts("colleague again", BATCH))
        buyer.buy(vendor, texts("after the audit", BATCH))
        vendor.accounts.top_up(account, 10)
    return settings, buyer


def _acknowledge(vendor: InProcessVendor, account: Account) -> None:
    """Append the entry that follows a restored backup which lost nothing."""
    lost_seq = vendor.accounts.totals(account.id).head.seq
    vendor.accounts.perform(
        Act("acknowledge_restore", {"seq": lost_seq}, account.id),
        lambda act: {"seq": post_restored(act, vendor.accounts.signer, account.id, lost_seq, "disk").seq},
    )


@contextmanager
def edited_books(home: Path, migrated_sqlite: Path) -> Iterator[EditedBooks]:
    """Serve such a ledger until the block ends."""
    settings, buyer = write_ledger(home, migrated_sqlite)
    path = home / "vendor" / "vendor.db"
    with open_vendor(settings) as vendor, closing(sqlite3.connect(":memory:", check_same_thread=False)) as truth:
        with closing(sqlite3.connect(path)) as live:
            live.backup(truth)
        truth.row_factory = sqlite3.Row
        with snapshot(vendor.engine) as connection:
            heads = HeadsFile(settings.published_heads_path, read_ledger_id(connection)).read()
        yield EditedBooks(vendor, path, truth, heads, buyer)
