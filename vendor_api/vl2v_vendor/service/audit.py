"""The audit surface: everything that a client needs to check its bill against its own books."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from vl2v_contract.chain import ChargedItem, LedgerEntry
from vl2v_vendor.domain.errors import InvalidRequest, NotFound
from vl2v_vendor.domain.ledger import PostedEntry
from vl2v_vendor.domain.ports import AccountTotals, Clock, Ledger, LedgerHead, PublishedKey, Signer

MAX_PAGE_ENTRIES = 1000


@dataclass(frozen=True, slots=True)
class SignedReceipt:
    """A ledger entry, its hash, and the signature by the key that the entry names."""

    entry: LedgerEntry
    entry_hash: str
    key_id: str
    signature: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementHead:
    """The end of the chain when the statement was made."""

    v: Literal[1] = 1
    ledger_id: str
    account_id: str
    seq: int
    entry_hash: str
    used_units: int
    limit_units: int
    signed_at: int
    key_id: str


@dataclass(frozen=True, slots=True)
class SignedHead:
    """A statement head with its signature."""

    head: StatementHead
    signature: str


@dataclass(frozen=True, slots=True)
class Statement:
    """A page of the account's ledger; ask after `next_after_seq` until it is None."""

    entries: tuple[PostedEntry, ...]
    signed_head: SignedHead
    next_after_seq: int | None


@dataclass(frozen=True, slots=True)
class Summary:
    """The bill at a glance, with the head that it was computed at."""

    ledger_id: str
    account_id: str
    totals: AccountTotals

    @property
    def remaining_units(self) -> int:
        """What is left of the account's budget."""
        return self.totals.head.limit_units - self.totals.head.used_units


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One billed request: its receipt and items."""

    receipt: SignedReceipt
    items: tuple[ChargedItem, ...]


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """All signing keys, oldest first."""

    ledger_id: str
    keys: tuple[PublishedKey, ...]


def sign_receipt(signer: Signer, posted: PostedEntry) -> SignedReceipt:
    """Sign the receipt of a committed entry; signing is deterministic, so a replay makes the same bytes."""
    signature = signer.sign_receipt(posted.entry, posted.entry_hash)
    return SignedReceipt(posted.entry, posted.entry_hash, posted.entry.signing_key_id, signature)


class Audit:
    """Statements, summaries, single requests and keys of one vendor."""

    def __init__(self, ledger: Ledger, signer: Signer, clock: Clock) -> None:
        self._ledger = ledger
        self._signer = signer
        self._clock = clock

    async def statement(self, account_id: str, after_seq: int = 0, limit: int = MAX_PAGE_ENTRIES) -> Statement:
        """Return a page of at most `limit` entries after `after_seq`, with the head of the whole chain.

        The head is read first and nothing beyond it is shown, so page and head never contradict each other.

        Raises:
            InvalidRequest: `after_seq` below 0, or `limit` not in 1 to 1000.
        """
        if after_seq < 0 or not 1 <= limit <= MAX_PAGE_ENTRIES:
            raise InvalidRequest(f"a page has after_seq 0 or more and a limit of 1 to {MAX_PAGE_ENTRIES}")
        head = await self._ledger.head(account_id)
        posted = await self._ledger.entries(account_id, after_seq=after_seq, limit=limit)
        page = tuple(entry for entry in posted if entry.entry.seq <= head.seq)
        last_seq = page[-1].entry.seq if page else head.seq
        return Statement(page, self._sign_head(account_id, head), last_seq if last_seq < head.seq else None)

    async def summary(self, account_id: str) -> Summary:
        """Return totals by day, model, endpoint and key, refunds taken off."""
        return Summary(self._ledger.ledger_id, account_id, await self._ledger.totals(account_id))

    async def request(self, account_id: str, request_id: str) -> RequestRecord:
        """Return the receipt and items of one billed request; the receipt is byte for byte the one first given.

        Raises:
            NotFound: The account was billed for no such request.
        """
        # No database is asked for what it could not even store.
        posted = await self._ledger.find_request(account_id, request_id) if request_id.isprintable() else None
        if posted is None:
            raise NotFound(f"request {request_id} billed nothing to this account")
        return RequestRecord(sign_receipt(self._signer, posted), posted.items)

    async def public_keys(self) -> PublicKeys:
        """Return the keys that sign receipts and heads, with the chain of successors."""
        return PublicKeys(self._ledger.ledger_id, tuple(await self._ledger.published_keys()))

    def _sign_head(self, account_id: str, head: LedgerHead) -> SignedHead:
        body = StatementHead(
            ledger_id=self._ledger.ledger_id,
            account_id=account_id,
            seq=head.seq,
            entry_hash=head.entry_hash,
            used_units=head.used_units,
            limit_units=head.limit_units,
            signed_at=self._clock.now(),
            key_id=self._signer.key_id,
        )
        return SignedHead(body, self._signer.sign_head(asdict(body)))
