"""The audit of a bill, from the vendor's keys to the report."""

from __future__ import annotations

from contextlib import closing
from itertools import chain

from vl2v_client.api.client import VendorClient
from vl2v_client.api.keyring import Keyring
from vl2v_client.audit.reconcile import Reconciliation
from vl2v_client.audit.report import CHAIN_DIFFERENCES, AuditReport, Findings
from vl2v_client.audit.statement import ChainWalk
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.cache.vendors import AuditedHead
from vl2v_client.core.progress import Progress, silent

_OTHER_MODEL = "unknown_model"
_REPLAY_ITEMS = 64


def audit_bill(
    client: VendorClient, cache: EmbeddingCache, *, recover: bool = False, progress: Progress = silent
) -> AuditReport:
    """Verify the account's whole chain and reconcile it with this cache; pin its end if it holds.

    Args:
        client: the vendor, with a key that may read the bill.
        cache: this client's own ledger.
        recover: fetch lost responses by free replay, then audit again.
        progress: told of entries verified, as phase "audit".

    Raises:
        VendorError: the statement or the keys cannot be had; nothing could be verified.
        CacheError: the cache cannot be read.
    """
    keyring = client.trusted_keys(cache.vendors.first_key)
    cache.vendors.remember_keys(keyring.ledger_id, keyring.keys)
    report, recovered = _audit_once(client, cache, keyring, recover=recover, progress=progress)
    if recovered:
        report, _ = _audit_once(client, cache, keyring, recover=False, progress=progress)
        report.recovered_items = recovered
    if not CHAIN_DIFFERENCES & report.findings.counts.keys():
        head = AuditedHead(report.head_seq, report.head_hash)
        cache.vendors.pin_head(report.ledger_id, report.account_id, head)
    return report


def _audit_once(
    client: VendorClient, cache: EmbeddingCache, keyring: Keyring, *, recover: bool, progress: Progress
) -> tuple[AuditReport, int]:
    findings = Findings()
    api_key_id = client.summary().api_key_id
    pages = client.statement_pages()
    first = last = next(pages)
    account_id = str(first.head["account_id"])
    walk = ChainWalk(account_id, keyring, cache.vendors.audited_head(keyring.ledger_id, account_id), findings)
    with closing(Reconciliation(cache.records, keyring.ledger_id, account_id, api_key_id, findings)) as books:
        entries = 0
        for page in chain([first], pages):
            last = page
            walk.check_head(page)
            for row in page.rows:
                walk.take(row)
            books.take(page.rows)
            entries += len(page.rows)
            progress("audit", entries, max(entries, int(str(page.head["seq"]))))
        walk.finish(last)
        books.finish(walk.seq)
        recovered = sum(_recover(client, cache, keys) for keys in books.lost_items()) if recover else 0
        report = AuditReport(
            ledger_id=keyring.ledger_id,
            account_id=account_id,
            head_seq=walk.seq,
            head_hash=walk.entry_hash,
            limit_units=walk.limit_units,
            entries=entries,
            matched_items=books.matched_items,
            units=walk.units,
            amount_micro=walk.amount_micro,
            currency=walk.currency,
            other_keys=books.other_keys,
            findings=findings,
        )
    return report, recovered


def _recover(client: VendorClient, cache: EmbeddingCache, item_keys: list[str]) -> int:
    """Fetch paid vectors free of charge, each model's apart; returns how many came."""
    recovered = 0
    for start in range(0, len(item_keys), _REPLAY_ITEMS):
        asking = item_keys[start : start + _REPLAY_ITEMS]
        while asking:
            delivery = client.replay(asking)
            cache.purchases.store(delivery)
            recovered += len(delivery.items)
            asking = [failed.item_key for failed in delivery.failed if failed.code == _OTHER_MODEL]
            if not delivery.items:
                break
    return recovered
