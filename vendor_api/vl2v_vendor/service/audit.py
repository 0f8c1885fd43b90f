"""The audit surface: everything that a client needs to check its bill against its own books."""

from dataclasses import asdict, dataclass

from vl2v_contract.records import (
    PublicKeys,
    Receipt,
    RequestRecord,
    SignedHead,
    SignedStatement,
    Statement,
    StatementEntry,
    StatementHead,
    Summary,
    Totals,
)
from vl2v_vendor.domain.errors import NotFound
from vl2v_vendor.domain.ports import Clock, Ledger, LedgerHead
from vl2v_vendor.keys.secrets import SecretSigner

MAX_PAGE_ENTRIES = 1000


def sign_receipt(signer: SecretSigner, posted: StatementEntry) -> Receipt:
    """Sign the receipt of a committed entry; signing is deterministic, so a replay makes the same bytes."""
    entry, entry_hash = posted.entry, posted.entry_hash
    return Receipt(entry, entry_hash, entry.signing_key_id, signer.sign_receipt(entry, entry_hash))


def sign_head(signer: SecretSigner, ledger_id: str, account_id: str, head: LedgerHead, *, now: int) -> SignedHead:
    """Sign the end of an account's chain, as of `now` in microseconds."""
    body = StatementHead(
        ledger_id=ledger_id, account_id=account_id, **asdict(head), signed_at=now, key_id=signer.key_id
    )
    return SignedHead(body, signer.sign_head(asdict(body)))


@dataclass(eq=False, slots=True)
class Audit:
    """Statements, summaries, single requests and keys of one vendor."""

    ledger: Ledger
    signer: SecretSigner
    clock: Clock

    async def statement(self, account_id: str, after_seq: int = 0, limit: int = MAX_PAGE_ENTRIES) -> Statement:
        """Return a page of at most `limit` entries after `after_seq`, with the head of the whole chain.

        The head is read first and nothing beyond it is shown, so page and head never contradict each other.
        """
        head = await self.ledger.head(account_id)
        found = await self.ledger.entries(account_id, after_seq=after_seq, limit=limit)
        page = tuple(entry for entry in found if entry.entry.seq <= head.seq)
        signed = sign_head(self.signer, self.ledger.ledger_id, account_id, head, now=self.clock.now())
        last_seq = page[-1].entry.seq if page else head.seq
        return Statement(page, signed, last_seq if last_seq < head.seq else None)

    async def signed_statement(
        self, account_id: str, after_seq: int = 0, limit: int = MAX_PAGE_ENTRIES
    ) -> SignedStatement:
        """Return a page with the entries' signatures, also where the last entries have none of this vendor.

        The head is then that of the last entry which has one, and ends the pages; entries behind it are shown with the
        last page, so that an auditor can name them.
        """
        found = await self.ledger.signed_entries(account_id, after_seq=after_seq, limit=limit)
        signed = sign_head(self.signer, self.ledger.ledger_id, account_id, found.head, now=self.clock.now())
        last_seq = found.entries[-1].entry.seq if found.entries else found.head.seq
        following = last_seq if last_seq < found.head.seq else None
        return SignedStatement(found.entries, signed, following, found.signatures)

    async def summary(self, account_id: str, api_key_id: str) -> Summary:
        """Return the bill at a glance, for the key that asks."""
        totals = await self.ledger.totals(account_id)
        head = totals.head
        return Summary(
            ledger_id=self.ledger.ledger_id,
            account_id=account_id,
            api_key_id=api_key_id,
            currency=totals.currency,
            limit_units=head.limit_units,
            used_units=head.used_units,
            remaining_units=head.limit_units - head.used_units,
            total=Totals(totals.units, totals.amount_micro),
            by_day=totals.by_day,
            by_model=totals.by_model,
            by_endpoint=totals.by_endpoint,
            by_key=totals.by_key,
            head_seq=head.seq,
            head_hash=head.entry_hash,
        )

    async def request(self, account_id: str, request_id: str) -> RequestRecord:
        """Return the receipt and items of one billed request; the receipt is byte for byte the one first given.

        Raises:
            NotFound: The account was billed for no such request.
        """
        # No database is asked for what it could not even store.
        posted = await self.ledger.find_request(account_id, request_id) if request_id.isprintable() else None
        if posted is None:
            raise NotFound(f"request {request_id} billed nothing to this account")
        return RequestRecord(sign_receipt(self.signer, posted), posted.items)

    async def public_keys(self) -> PublicKeys:
        """Return the keys that sign receipts and heads, with the chain of successors."""
        return PublicKeys(self.ledger.ledger_id, tuple(await self.ledger.published_keys()))
