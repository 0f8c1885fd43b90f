"""The end of an account's chain, to be signed; and entries with the signatures that were committed with them."""

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

_HEAD = tuple(ledger.c[name] for name in LedgerHead.__slots__)
_BEGINNING = LedgerHead(0, GENESIS_HASH, 0, 0)


def read_signed_head(connection: Connection, signer: SecretSigner, account_id: str) -> LedgerHead:
    """Return the end of the account's chain, to be signed.

    Raises:
        NotFound: The account is unknown.
        LedgerUnavailable: The last entry is not the vendor's own, or not what the account's budget says of it.
    """
    head = read_head(connection, account_id)
    require_signed(connection, signer, account_id, head.seq)
    last_one = (
        select(*_HEAD)
        .where(ledger.c.account_id == account_id, ledger.c.seq >= head.seq)
        .order_by(ledger.c.seq.desc())
        .limit(1)
    )
    last = connection.execute(last_one).one_or_none()
    if head != (_BEGINNING if last is None else LedgerHead(*last)):
        raise LedgerUnavailable(
            f"the end of {account_id}'s chain in the table `budgets` is not its last entry: one was edited; "
            "run `vl2v-vendor ledger verify`"
        )
    return head


def read_signed_entries(
    connection: Connection, signer: SecretSigner, account_id: str, after_seq: int, limit: int
) -> SignedEntries:
    """Return entries `after_seq + 1 ...` in order, at most `limit`, with their signatures as stored.

    Raises:
        NotFound: The account is unknown.
    """
    try:
        head = read_signed_head(connection, signer, account_id)
    except LedgerUnavailable:
        head = _last_own(connection, signer, account_id)
    entries = read_entries(connection, account_id, after_seq, limit)
    last_seq = entries[-1].entry.seq if entries else after_seq
    query = select(entry_signatures.c.seq, entry_signatures.c.signature).where(
        entry_signatures.c.account_id == account_id, entry_signatures.c.seq.between(after_seq + 1, last_seq)
    )
    signatures = {row.seq: row.signature for row in connection.execute(query)}
    return SignedEntries(head, tuple(entries), tuple(signatures.get(posted.entry.seq) for posted in entries))


def _last_own(connection: Connection, signer: SecretSigner, account_id: str) -> LedgerHead:
    """Return the last entry that the vendor signed, as a head; or the chain's beginning."""
    own = (entry_signatures.c.account_id == ledger.c.account_id) & (entry_signatures.c.seq == ledger.c.seq)
    query = (
        select(*_HEAD, entry_signatures.c.signature)
        .join(entry_signatures, own)
        .where(ledger.c.account_id == account_id)
        .order_by(ledger.c.seq.desc())
    )
    published = connection.execute(PUBLISHED_KEYS).all()
    with connection.execute(query.execution_options(yield_per=100)) as rows:
        for *head, signature in rows:
            with suppress(LedgerUnavailable):
                require_own(signer, (account_id, head[0], head[1], signature), lambda: published)
                return LedgerHead(*head)
    return _BEGINNING
