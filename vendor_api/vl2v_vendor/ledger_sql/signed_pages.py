"""Entries with the signatures that were committed with them, for an auditor who asks what the vendor itself made."""

from contextlib import suppress

from sqlalchemy import Connection, select

from vl2v_contract.chain import GENESIS_HASH
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.domain.ports import LedgerHead, SignedEntries
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql.reading import read_entries, read_head
from vl2v_vendor.ledger_sql.signatures import require_own, require_signed
from vl2v_vendor.ledger_sql.statements import PUBLISHED_KEYS
from vl2v_vendor.ledger_sql.tables import entry_signatures, ledger


def read_signed_entries(
    connection: Connection, signer: SecretSigner, account_id: str, after_seq: int, limit: int
) -> SignedEntries:
    """Return entries `after_seq + 1 ...` in order, at most `limit`, with their signatures as stored.

    Raises:
        NotFound: The account is unknown.
    """
    end = head = read_head(connection, account_id)
    try:
        require_signed(connection, signer, account_id, head.seq)
    except LedgerUnavailable:
        head = _last_own(connection, signer, account_id, end.seq)
    found = read_entries(connection, account_id, after_seq, limit)
    entries = tuple(posted for posted in found if posted.entry.seq <= end.seq)
    last_seq = entries[-1].entry.seq if entries else after_seq
    query = select(entry_signatures.c.seq, entry_signatures.c.signature).where(
        entry_signatures.c.account_id == account_id, entry_signatures.c.seq.between(after_seq + 1, last_seq)
    )
    signatures = {row.seq: row.signature for row in connection.execute(query)}
    return SignedEntries(head, entries, tuple(signatures.get(posted.entry.seq) for posted in entries))


def _last_own(connection: Connection, signer: SecretSigner, account_id: str, before_seq: int) -> LedgerHead:
    """Return the last entry before a number that the vendor signed, as a head; or the chain's beginning."""
    own = (entry_signatures.c.account_id == ledger.c.account_id) & (entry_signatures.c.seq == ledger.c.seq)
    query = (
        select(
            ledger.c.seq, ledger.c.entry_hash, ledger.c.used_units, ledger.c.limit_units, entry_signatures.c.signature
        )
        .join(entry_signatures, own)
        .where(ledger.c.account_id == account_id, ledger.c.seq < before_seq)
        .order_by(ledger.c.seq.desc())
    )
    published = connection.execute(PUBLISHED_KEYS).all()
    with connection.execute(query.execution_options(yield_per=100)) as rows:
        for *head, signature in rows:
            with suppress(LedgerUnavailable):
                require_own(signer, (account_id, head[0], head[1], signature), lambda: published)
                return LedgerHead(*head)
    return LedgerHead(0, GENESIS_HASH, 0, 0)
