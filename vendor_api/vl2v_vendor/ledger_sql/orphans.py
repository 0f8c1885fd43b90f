"""Rows beside the ledger that belong to nothing in it: signatures of no entry, and kept vectors of no charge."""

from sqlalchemy import Connection, and_, select

from vl2v_vendor.ledger_sql.tables import charge_items, entry_signatures, ledger, results
from vl2v_vendor.service.verification import VerificationReport


def check_orphans(connection: Connection, report: VerificationReport) -> None:
    """Report signatures whose entry is not there, and vectors whose item nobody paid for."""
    own = and_(entry_signatures.c.account_id == ledger.c.account_id, entry_signatures.c.seq == ledger.c.seq)
    signatures = (
        select(entry_signatures.c.account_id, entry_signatures.c.seq)
        .outerjoin(ledger, own)
        .where(ledger.c.seq.is_(None))
    )
    for account_id, seq in connection.execute(signatures):
        report.add(account_id, seq, "orphan_signature", f"entry {seq}, which was signed, is not in the ledger")
    paid = and_(results.c.account_id == charge_items.c.account_id, results.c.item_key == charge_items.c.item_key)
    vectors = (
        select(results.c.account_id, results.c.item_key)
        .outerjoin(charge_items, paid)
        .where(charge_items.c.item_key.is_(None))
    )
    for account_id, item_key in connection.execute(vectors):
        report.add(account_id, None, "orphan_result", f"the vector kept for {item_key} belongs to no charge")
