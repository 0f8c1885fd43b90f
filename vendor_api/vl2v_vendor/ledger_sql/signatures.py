"""Signatures that are committed with what they sign: of entries, and of the acts in the staff's log.

An entry's signature is that of its receipt. The acts are a chain: each is hashed with the hash of the one before, and
that is signed. Nothing is built on an entry that the vendor did not sign, so a signature covers all entries before it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from vl2v_contract.chain import GENESIS_HASH, LedgerEntry
from vl2v_contract.identity import canonical_json, sha256_hex
from vl2v_contract.records import PublicKey, receipt_message, successor_message, verify
from vl2v_vendor.domain.errors import LedgerUnavailable
from vl2v_vendor.keys.secrets import SecretSigner
from vl2v_vendor.ledger_sql.statements import ENTRY_COLUMNS, PUBLISHED_KEYS, to_entry
from vl2v_vendor.ledger_sql.tables import act_signatures, admin_log, budgets, entry_signatures, ledger
from vl2v_vendor.service.signature_checks import SignedAct

SIGN_ENTRIES = "sign_entries"
"""The act that signs what was made without a signature; its outcome names the entries."""

ACT_FIELDS = tuple(column.name for column in admin_log.columns)


def signature_row(signer: SecretSigner, entry: LedgerEntry, entry_hash: str) -> dict[str, Any]:
    """Sign an entry; returns its row of `entry_signatures`."""
    signature = signer.sign_entry(entry, entry_hash)
    return {"account_id": entry.account_id, "seq": entry.seq, "signature": signature}


def hash_act(row: Row[Any], prev_hash: str) -> str:
    """Return the hash of a row of the staff's log, after the one whose hash is `prev_hash`."""
    return sha256_hex(canonical_json({name: getattr(row, name) for name in ACT_FIELDS} | {"prev_hash": prev_hash}))


def sign_act(connection: Connection, signer: SecretSigner, act_id: int) -> None:
    """Sign an act that was just inserted; nobody inserts another one meanwhile."""
    last = connection.execute(select(act_signatures).order_by(act_signatures.c.act_id.desc()).limit(1)).first()
    act_hash, after_id = (GENESIS_HASH, 0) if last is None else (last.act_hash, last.act_id)
    query = select(admin_log).where(admin_log.c.id > after_id, admin_log.c.id <= act_id).order_by(admin_log.c.id)
    for row in connection.execute(query):  # one, but for the first that is signed
        act_hash = hash_act(row, act_hash)
    signed = {"act_id": act_id, "act_hash": act_hash, "key_id": signer.key_id, "signature": signer.sign_act(act_hash)}
    connection.execute(insert(act_signatures).values(signed))


def sign_heads(connection: Connection, signer: SecretSigner) -> list[list[str | int]]:
    """Sign the last entry of each account that has none signed; returns account, number and hash of each."""
    is_head = (budgets.c.account_id == ledger.c.account_id) & (budgets.c.last_seq == ledger.c.seq)
    is_signed = (entry_signatures.c.account_id == ledger.c.account_id) & (entry_signatures.c.seq == ledger.c.seq)
    query = (
        select(*ENTRY_COLUMNS)
        .join(budgets, is_head & budgets.c.api_key_id.is_(None))
        .outerjoin(entry_signatures, is_signed)
        .where(entry_signatures.c.seq.is_(None))
        .order_by(ledger.c.account_id)
    )
    heads = [to_entry(row) for row in connection.execute(query)]
    if heads:
        rows = [signature_row(signer, entry, entry_hash) for entry, entry_hash in heads]
        connection.execute(insert(entry_signatures), rows)
    return [[entry.account_id, entry.seq, entry_hash] for entry, entry_hash in heads]


def are_acts_unsigned(connection: Connection) -> bool:
    """Return whether there are acts, and none is signed: the ledger is of an older version.

    Raises:
        LedgerUnavailable: Entries are signed, so the signatures of the acts were deleted.
    """
    is_signed = connection.execute(select(act_signatures.c.act_id).limit(1)).first() is not None
    if is_signed or connection.execute(select(admin_log.c.id).limit(1)).first() is None:
        return False
    if connection.execute(select(entry_signatures.c.seq).limit(1)).first() is not None:
        raise LedgerUnavailable("the signatures of the staff's log are gone; restore a backup of the database")
    return True


def require_own(
    signer: SecretSigner, head: tuple[str, int, str, str | None], read_keys: Callable[[], Iterable[Any]]
) -> None:
    """Check that the vendor's software made an entry, before anything is built on it, or signed that rests on it.

    Args:
        signer: Holder of the keys, but maybe not yet of one that another replica has.
        head: The entry's account, number and hash, and its signature as stored.
        read_keys: Reads the rows of `PUBLISHED_KEYS`.

    Raises:
        LedgerUnavailable: It has no signature, or that of somebody else.
    """
    account_id, seq, entry_hash, signature = head
    if seq == 0 or signer.has_signed(entry_hash, signature or ""):
        return
    known = {key.key_id: key.public_key for key in signer.published_keys}
    for key in (PublicKey(*row) for row in read_keys()):
        voucher, vouched = known.get(key.predecessor_id or "", ""), successor_message(key.public_key)
        if verify(voucher, vouched, key.predecessor_signature or ""):
            known[key.key_id] = key.public_key
            if verify(key.public_key, receipt_message(entry_hash), signature or ""):
                return
    raise LedgerUnavailable(
        f"entry {seq} of {account_id} has no signature of this vendor: it was made by other means than its server and "
        "commands, or by those of an older version; run `vl2v-vendor ledger verify`"
    )


def require_kept(signed_seq: int, account_id: str, last_seq: int) -> None:
    """Check that an account's chain still has what this process had signed before the chain was read.

    Raises:
        LedgerUnavailable: It ends before that: an older database took the place of the one that was opened.
    """
    if signed_seq > last_seq:
        raise LedgerUnavailable(
            f"entry {signed_seq} of {account_id} was signed here, and its chain ends at {last_seq}: an older state of "
            "the database came back under this server; stop all servers, then run `vl2v-vendor ledger verify`"
        )


def require_signed(connection: Connection, signer: SecretSigner, account_id: str, seq: int) -> None:
    """Check an entry, or one after it, which covers it by its hash, as `require_own` does."""
    own = (entry_signatures.c.account_id == ledger.c.account_id) & (entry_signatures.c.seq == ledger.c.seq)
    query = (
        select(ledger.c.entry_hash, entry_signatures.c.signature)
        .join(entry_signatures, own)
        .where(ledger.c.account_id == account_id, ledger.c.seq >= seq)
        .order_by(ledger.c.seq.desc())
        .limit(1)
    )
    entry_hash, signature = connection.execute(query).one_or_none() or ("", None)
    require_own(signer, (account_id, seq, entry_hash, signature), lambda: connection.execute(PUBLISHED_KEYS))


def read_begun(connection: Connection) -> dict[str, set[tuple[int, str]]] | None:
    """Return the entries that were signed with all that came before, by account; None if nothing is signed."""
    signed = (act_signatures.c.act_id, entry_signatures.c.seq)
    if all(connection.execute(select(column).limit(1)).first() is None for column in signed):
        return None
    begun: dict[str, set[tuple[int, str]]] = {}
    for outcome in connection.execute(select(admin_log.c.outcome).where(admin_log.c.act == SIGN_ENTRIES)).scalars():
        with suppress(ValueError, TypeError, KeyError):  # an act that was edited is named elsewhere
            for account_id, seq, entry_hash in json.loads(outcome)["heads"]:
                begun.setdefault(account_id, set()).add((seq, entry_hash))
    return begun


def read_signed_acts(connection: Connection) -> Iterator[SignedAct]:
    """Yield the acts by id, each with its signature, and the signatures that have no act."""
    signatures = {row.act_id: row for row in connection.execute(select(act_signatures))}
    acts = {row.id: row for row in connection.execute(select(admin_log))}
    last_hash = GENESIS_HASH
    for act_id in sorted(acts.keys() | signatures.keys()):
        act, signed = acts.get(act_id), signatures.get(act_id)
        computed_hash = None if act is None else hash_act(act, last_hash)
        begins = act is not None and act.act == SIGN_ENTRIES
        if signed is None:
            yield SignedAct(act_id, computed_hash, None, None, None, begins)
        else:
            yield SignedAct(act_id, computed_hash, signed.act_hash, signed.key_id, signed.signature, begins)
        if computed_hash is not None:
            last_hash = computed_hash if signed is None else signed.act_hash
