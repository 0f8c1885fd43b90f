"""After an older state of the database came back: which published entries are lost, and a signed entry that says so."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, select

from vl2v_contract.identity import JSONValue, canonical_json, sha256_hex
from vl2v_vendor.domain.accounts import MAX_NOTE_LENGTH, check_text
from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.keys.published_heads import Heads, HeadsFile, PublishedHead
from vl2v_vendor.ledger_sql.account_rows import post_restored
from vl2v_vendor.ledger_sql.admin_acts import Act, ActInProgress, Outcome
from vl2v_vendor.ledger_sql.reading import read_head, snapshot
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.tables import accounts, ledger


class LedgerBehind(VendorError):
    """The ledger lacks entries that were signed: an older state of the database was restored."""


@dataclass(frozen=True, slots=True)
class LostHead:
    """A published entry that the ledger does not have; `last_seq` is None where the whole account is missing."""

    account_id: str
    published: PublishedHead
    last_seq: int | None


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What was written for a lost head; `restored` is None for an account that the ledger no longer has."""

    lost: LostHead
    restored: PublishedHead | None


def require_published(engine: Engine, file: HeadsFile) -> None:
    """Check that the ledger holds every published head, or says by a `restored` entry that it is lost.

    Raises:
        LedgerBehind: Names an account, the published number, where the ledger ends, or the ledger that is not there;
            and the remedy.
        LedgerUnavailable: The database cannot be read.
        HeadsFileError: The file cannot be read.
    """
    if unlike := file.others():
        raise LedgerBehind(
            f"the database is {file.ledger_id}, which has signed nothing here, but {file.path} is of another ledger: "
            f"{', '.join(unlike)}. Name the right database, restore a backup, or run `vl2v-vendor ledger "
            "acknowledge-restore` if this is to be a new ledger"
        )
    lost = find_lost(engine, file.read())
    if not lost:
        return
    first = lost[0]
    end = "has no such account" if first.last_seq is None else f"ends at entry {first.last_seq} and lacks it"
    others = f" (and of {len(lost) - 1} more accounts)" if len(lost) > 1 else ""
    raise LedgerBehind(
        f"entry {first.published.seq} of account {first.account_id}{others} was signed by this vendor, but the ledger "
        f"{end}: an older state of the database was restored. Restore a newer backup, or run "
        "`vl2v-vendor ledger acknowledge-restore`, which adds a signed entry that tells the clients"
    )


def find_lost(engine: Engine, heads: Mapping[str, PublishedHead]) -> list[LostHead]:
    """Return the published heads that the ledger neither holds nor accounts for; raises LedgerUnavailable."""
    with snapshot(engine) as connection:
        return [lost for name, head in sorted(heads.items()) if (lost := _lost(connection, name, head)) is not None]


def acknowledge(staff: SqlAccounts, file: HeadsFile, note: str | None = None) -> list[Acknowledgement]:
    """Append a `restored` entry to each account whose published head is lost, then bring the file into step.

    A ledger that the file does not know, beside others, is from then on known as a new one.

    Safe to repeat: what was acknowledged is not lost any more, also for the file of another replica.

    Raises:
        InvalidRequest: The note is too long, or does not print.
        LedgerUnavailable: The database cannot be written.
        HeadsFileError: The file cannot be read or written; what was appended stays.
    """
    check_text("a note", note or "", MAX_NOTE_LENGTH)
    if others := file.others():
        new: Mapping[str, JSONValue] = {"ledger_id": file.ledger_id, "beside": list(others)}
        staff.perform(Act("acknowledge_restore", new), lambda _: {"note": note})
    done = [Acknowledgement(lost, _acknowledge_one(staff, lost, note)) for lost in find_lost(staff.engine, file.read())]
    file.merge({act.lost.account_id: act.restored for act in done if act.restored is not None})
    file.forget(act.lost.account_id for act in done if act.restored is None)
    return done


def read_heads(connection: Connection) -> Heads:
    """Return the end of every account's chain."""
    ids = connection.execute(select(accounts.c.id).order_by(accounts.c.id)).scalars().all()
    ends = {account_id: read_head(connection, account_id) for account_id in ids}
    return {account_id: PublishedHead(head.seq, head.entry_hash) for account_id, head in ends.items()}


def _acknowledge_one(staff: SqlAccounts, lost: LostHead, note: str | None) -> PublishedHead | None:
    lost_hash = f"lost head {lost.published.entry_hash}"

    def work(act: ActInProgress) -> Outcome:
        if lost.last_seq is None:
            return {"note": note}
        reason = lost_hash if note is None else f"{lost_hash}; {note}"
        entry = post_restored(act, staff.signer, lost.account_id, lost.published.seq, reason)
        return {"seq": entry.seq, "entry_hash": entry.hash(), "note": note}

    parameters: Mapping[str, JSONValue] = {
        "account_id": lost.account_id,
        "published_seq": lost.published.seq,
        "published_hash": lost.published.entry_hash,
    }
    request_id = f"restored_{sha256_hex(canonical_json(dict(parameters)))[:24]}"
    known_account_id = None if lost.last_seq is None else lost.account_id
    outcome = staff.perform(Act("acknowledge_restore", parameters, known_account_id, request_id), work)
    return PublishedHead(outcome["seq"], outcome["entry_hash"]) if "seq" in outcome else None


def _lost(connection: Connection, account_id: str, head: PublishedHead) -> LostHead | None:
    if connection.execute(select(accounts.c.id).where(accounts.c.id == account_id)).first() is None:
        return LostHead(account_id, head, None)
    query = (
        select(ledger.c.seq, ledger.c.kind, ledger.c.entry_hash)
        .where(ledger.c.account_id == account_id, ledger.c.seq >= head.seq)
        .order_by(ledger.c.seq)
        .limit(1)
    )
    found = connection.execute(query).first()
    is_held = found is not None and found.seq == head.seq and found.entry_hash == head.entry_hash
    is_acknowledged = found is not None and found.seq > head.seq and found.kind == "restored"
    return None if is_held or is_acknowledged else LostHead(account_id, head, read_head(connection, account_id).seq)
