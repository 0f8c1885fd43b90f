"""The audit of a bill, from the vendor's keys to the report; and, offline, of what the cache holds for it."""

import json
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, partial
from itertools import chain

import numpy as np

from vl2v_client.api.checks import is_unit
from vl2v_client.api.client import VendorClient
from vl2v_client.api.keyring import Keyring
from vl2v_client.audit.audit_report import CHAIN_DIFFERENCES, EXAMPLES_KEPT, AuditReport, Difference
from vl2v_client.audit.notes import Notes
from vl2v_client.audit.reconcile import Reconciliation
from vl2v_client.audit.statement import ChainWalk
from vl2v_client.cache.records import PaidRow
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.deliveries import OTHER_MODEL
from vl2v_client.core.errors import VendorChanged
from vl2v_client.core.progress import Progress, silent
from vl2v_contract.identity import sha256_hex
from vl2v_contract.records import Receipt, SignedStatement


class Damage(StrEnum):
    """What can be wrong with a paid item."""

    NO_VECTOR = "no_vector"
    NO_RECEIPT = "no_receipt"
    BAD_VECTOR = "bad_vector"
    WRONG_HASH = "wrong_hash"
    BAD_RECEIPT = "bad_receipt"


@dataclass(slots=True)
class HoldingsReport:
    """What a check of the cache found; `examples` pairs an item key with its damage."""

    items: int = 0
    damage: Counter[Damage] = field(default_factory=Counter)
    examples: list[tuple[str, Damage]] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        """Whether every paid item has a sound vector and a sound receipt."""
        return not self.damage


def audit_bill(
    client: VendorClient,
    cache: EmbeddingCache,
    *,
    recover: bool = False,
    only_ours: bool = False,
    accept_others: bool = False,
    settle_seconds: float = 2.0,
    progress: Progress = silent,
) -> AuditReport:
    """Verify the account's whole chain and reconcile it with this cache; pin its end if it holds.

    Args:
        client: The vendor, with a key that may read the bill.
        cache: This client's own ledger.
        recover: Fetch lost responses by free replay, then audit again.
        only_ours: Nothing but this cache buys with its API keys, so that every other charge to them is a difference.
        accept_others: Remember that what other software has bought with our keys so far is the account's own.
        settle_seconds: How long to wait for answers that a purchase, running beside this audit, may be about to store.
        progress: Gets the number of entries verified, as phase "audit".

    Raises:
        VendorError: The statement or the keys cannot be had; nothing could be verified.
        CacheError: The cache cannot be read.
    """
    keyring = _trusted_keys(client, cache)
    audit_once = partial(_audit_once, client, cache, progress=progress, only_ours=only_ours)
    report = audit_once(keyring, None if recover else settle_seconds)
    recovered = report.recovered_items
    # The vendor may have gone over to a new key since its keys were read.
    renewed = _trusted_keys(client, cache) if report.findings.counts[Difference.BAD_SIGNATURE] else keyring
    if recovered or renewed.keys != keyring.keys:
        report = audit_once(renewed, settle_seconds)
        report.recovered_items = recovered
    if report.is_end_signed and not CHAIN_DIFFERENCES & report.findings.counts.keys():
        place = (report.ledger_id, report.account_id)
        cache.vendors.pin_head(*place, report.head_seq, report.head_hash)
        if accept_others:
            cache.vendors.accept_others(*place, report.head_seq)
            report.accept_others()
    return report


def _trusted_keys(client: VendorClient, cache: EmbeddingCache) -> Keyring:
    keyring = client.trusted_keys(cache.vendors.first_key)
    cache.vendors.remember_keys(keyring.ledger_id, keyring.keys)
    return keyring


def _audit_once(
    client: VendorClient,
    cache: EmbeddingCache,
    keyring: Keyring,
    settle_seconds: float | None,
    *,
    progress: Progress,
    only_ours: bool,
) -> AuditReport:
    """Audit what the vendor shows now; without `settle_seconds`, lost responses are recovered and not waited for."""
    account = client.summary()
    if account.ledger_id != keyring.ledger_id:
        raise VendorChanged(
            f"the vendor at {client.url} bills for ledger {account.ledger_id} but publishes the keys of "
            f"{keyring.ledger_id}: nothing can be verified; ask the vendor"
        )
    report = AuditReport(ledger_id=keyring.ledger_id, account_id=account.account_id)
    pinned = cache.vendors.audited_head(keyring.ledger_id, account.account_id)
    with closing(Notes()) as notes, closing(_read_ahead(client)) as pages:
        # Our receipts so far are noted before the statement is made: it must have them all.
        accepted_seq = 0 if pinned is None else pinned.accepted_seq
        books = Reconciliation(cache.records, account, report, notes, accepted_seq=accepted_seq)
        first = next(pages)
        walk = ChainWalk(account, keyring, pinned, first, report, notes)
        for page in chain([first], pages):
            books.take(walk.take(page))
            progress("audit", report.entries, max(report.entries, walk.end_seq))
            if page.signed_head.head.seq > walk.end_seq <= report.head_seq:
                break  # the ledger has grown meanwhile
        walk.finish()
        if settle_seconds is not None:
            _await_answers(books, settle_seconds)
        books.finish(walk.restores, 0 if pinned is None else pinned.seq, only_ours=only_ours)
        lost = [] if settle_seconds is not None else books.lost_items()
        report.recovered_items = sum(_recover(client, cache, keys) for keys in lost)
    return report


def _await_answers(books: Reconciliation, seconds: float) -> None:
    """Give answers that are on their way the time to arrive: only one that does not is lost."""
    deadline = time.monotonic() + seconds
    while next(books.lost_items(), None) is not None and time.monotonic() < deadline:
        time.sleep(0.05)


def _read_ahead(client: VendorClient) -> Generator[SignedStatement, None, None]:
    """Yield the statement's pages; the next one is fetched while the last one is being verified."""
    pages = client.signed_pages()
    with ThreadPoolExecutor(1, thread_name_prefix="statement") as pool:
        try:
            coming = pool.submit(next, pages, None)
            while (page := coming.result()) is not None:
                coming = pool.submit(next, pages, None)
                yield page
        except KeyboardInterrupt:
            client.cancel()  # or the pool would wait for every attempt that is still to come
            raise


def _recover(client: VendorClient, cache: EmbeddingCache, item_keys: list[str]) -> int:
    """Fetch paid vectors free of charge, each model's apart; returns how many came."""
    recovered = 0
    most_items = client.model().max_items
    for start in range(0, len(item_keys), most_items):
        asking = item_keys[start : start + most_items]
        while asking:
            delivery = client.replay(asking)
            cache.purchases.store(delivery)
            recovered += len(delivery.items)
            others = [failed.item_key for failed in delivery.failed if failed.code == OTHER_MODEL]
            asking = others if delivery.items else []
    return recovered


def verify_holdings(cache: EmbeddingCache, *, progress: Progress = silent) -> HoldingsReport:
    """Check every paid item: vector present, finite, of unit norm and of the hash that was billed; receipt signed.

    Sends nothing. Raises `CacheError` if the file itself is damaged.
    """

    @lru_cache(maxsize=64)
    def keyring_of(ledger_id: str) -> Keyring | None:
        with suppress(VendorChanged):
            return Keyring(ledger_id, cache.vendors.keys(ledger_id), pinned=cache.vendors.first_key(ledger_id))
        return None

    @lru_cache(maxsize=1024)  # one receipt pays for many items
    def is_signed(ledger_id: str, receipt: Receipt) -> bool:
        keyring = keyring_of(ledger_id)
        return keyring is not None and keyring.signed_receipt(receipt)

    report = HoldingsReport()
    total = sum(vendor.paid_items for vendor in cache.stats().vendors)
    for row in cache.records.paid_rows():
        report.items += 1
        damage = _damage(row, is_signed)
        if damage is not None:
            report.damage[damage] += 1
            if len(report.examples) < EXAMPLES_KEPT:
                report.examples.append((row.item_key, damage))
        if report.items % 1000 == 0 or report.items == total:
            progress("verify cache", report.items, total)
    return report


def _damage(row: PaidRow, is_signed: Callable[[str, Receipt], bool]) -> Damage | None:
    if row.vector is None:
        return Damage.NO_VECTOR
    if len(row.vector) % 2 or not is_unit(np.frombuffer(row.vector, dtype="<f2")):
        return Damage.BAD_VECTOR
    expected = row.result_sha if row.recompute_json is None else json.loads(row.recompute_json)["note"]["result_sha"]
    if sha256_hex(row.vector) != expected:
        return Damage.WRONG_HASH
    if row.receipt is None:
        return Damage.NO_RECEIPT
    return None if is_signed(row.ledger_id, row.receipt) else Damage.BAD_RECEIPT
