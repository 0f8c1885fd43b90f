"""A real vendor goes back to a backup and says so: the client is told once what was lost, and keeps what it has."""

from __future__ import annotations

import getpass
import shutil
from pathlib import Path

from support.ledger.honest_books import Party
from support.vendor.vendor_in_process import open_vendor, vendor_settings
from vl2v_client.audit.audit_report import AuditReport
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_contract.chain import RESTORE_MARGIN
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.published_heads import HeadsFile
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.reading import read_ledger_id
from vl2v_vendor.ledger_sql.restoration import acknowledge
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.settings import Settings


def test_a_restored_ledger_is_told_once_and_trusted_again(tmp_path: Path, migrated_sqlite: Path) -> None:
    settings = vendor_settings(tmp_path / "vendor", migrated_sqlite, max_items=5)
    database, backup = tmp_path / "vendor" / "vendor.db", tmp_path / "backup.db"
    with open_vendor(settings) as vendor:
        account = vendor.accounts.create_account("acme", budget_units=100)
        party = Party(str(vendor.accounts.create_key(account, scopes=DEFAULT_SCOPES)[1]), tmp_path / "client.db")
        party.buy(vendor, texts("kept", 5))
    shutil.copy(database, backup)
    with open_vendor(settings) as vendor:
        party.buy(vendor, texts("lost", 10))
        assert audit(party, vendor.transport).is_clean
    shutil.copy(backup, database)
    acknowledge_restore(settings)
    with open_vendor(settings) as vendor:
        report = audit(party, vendor.transport)
        assert {str(kind) for kind in report.findings.counts} == {"ledger_restored"}
        assert (report.head_seq, report.lost_by_restore.units) == (4 + 1 + RESTORE_MARGIN, 10)
        assert audit(party, vendor.transport).is_clean
        party.buy(vendor, [*texts("lost", 10), *texts("new", 5)])
        report = audit(party, vendor.transport)
        assert (report.is_clean, report.matched_items, report.units) == (True, 10, 10)


def acknowledge_restore(settings: Settings) -> None:
    engine = open_engine(settings.database)
    with engine.connect() as connection:
        heads = HeadsFile(settings.published_heads_path, read_ledger_id(connection))
    signer = load_or_create_secrets(settings.secrets_path).signer()
    done = acknowledge(SqlAccounts(engine, signer=signer, clock=SystemClock(), actor=getpass.getuser()), heads)
    engine.dispose()
    assert [(act.lost.published.seq, act.lost.last_seq) for act in done] == [(4, 2)]


def audit(party: Party, transport: object) -> AuditReport:
    with EmbeddingCache(party.cache) as cache, party.connect(transport) as client:  # type: ignore[arg-type]
        return audit_bill(client, cache, settle_seconds=0)


def texts(name: str, count: int) -> list[str]:
    return [f"{name} {number}" for number in range(count)]
