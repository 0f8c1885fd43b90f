"""What the use cases need from the world. Adapters implement these; `bootstrap` chooses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from vl2v_contract.chain import LedgerEntry
from vl2v_contract.identity import Modality
from vl2v_contract.records import Breakdown, PublicKey, StatementEntry
from vl2v_vendor.domain.accounts import Account, AdminAct, ApiKey, Budget, Scope
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, Offer, Price


@dataclass(frozen=True, slots=True)
class LedgerHead:
    """The end of an account's chain; `seq` 0 and the genesis hash before the first entry."""

    seq: int
    entry_hash: str
    used_units: int
    limit_units: int


@dataclass(frozen=True, slots=True)
class AccountTotals:
    """The bill at a glance, computed from ledger rows; `head` is the end of the chain in the same snapshot."""

    head: LedgerHead
    currency: str
    units: int
    amount_micro: int
    by_day: tuple[Breakdown, ...]
    by_model: tuple[Breakdown, ...]
    by_endpoint: tuple[Breakdown, ...]
    by_key: tuple[Breakdown, ...]


@dataclass(frozen=True, slots=True)
class SignedEntries:
    """Entries in one snapshot of an account's ledger, with the signatures stored beside them.

    Attributes:
        head: The last entry that the vendor signed, and may build on; those behind it are none of its software's.
        entries: In order, with their items.
        signatures: Of each entry; None for one that has none.
    """

    head: LedgerHead
    entries: tuple[StatementEntry, ...]
    signatures: tuple[str | None, ...]


class Ledger(Protocol):
    """The ledger as the server uses it. Every method may raise `LedgerUnavailable`."""

    @property
    def ledger_id(self) -> str:
        """The vendor's name for ever, whatever its URL."""

    async def find_key(self, secret_sha256: str) -> ApiKey | None:
        """Return the API key whose secret has this SHA-256 (hex), revoked or expired ones too."""

    async def offer(self, caller: ApiKey, model_id: str, modality: Modality, item_keys: Sequence[str]) -> Offer:
        """Read what a request for these items is admitted by, in one snapshot.

        Raises:
            UnknownModel: The model has no price for this modality.
        """

    async def price(self, model_id: str, modality: Modality) -> Price:
        """Return the price in force now.

        Raises:
            UnknownModel: The model has no price for this modality.
        """

    async def charge(self, order: ChargeOrder) -> Charge:
        """Claim, debit, entry and results in ONE transaction; returns after the commit.

        Raises:
            BudgetExhausted: Nothing fits (or not everything, without `allow_partial`); nothing was written.
            PriceChanged: The price moved since admission; nothing was written.
        """

    async def head(self, account_id: str) -> LedgerHead:
        """Return the end of the account's chain."""

    async def entries(self, account_id: str, *, after_seq: int, limit: int) -> list[StatementEntry]:
        """Return entries `after_seq + 1 ...` in order, at most `limit`, with their items."""

    async def signed_entries(self, account_id: str, *, after_seq: int, limit: int) -> SignedEntries:
        """Return what `entries` does with the signatures as stored, and the end up to which the vendor made them."""

    async def find_entries(self, account_id: str, seqs: Sequence[int]) -> list[StatementEntry]:
        """Return the entries of these numbers in order, with their items."""

    async def find_request(self, account_id: str, request_id: str) -> StatementEntry | None:
        """Return the entry that a request made."""

    async def totals(self, account_id: str, *, since: int = 0) -> AccountTotals:
        """Return totals over the account's ledger rows, or over those made at `since` (microseconds) or later."""

    async def list_entries(
        self, account_id: str, *, limit: int, before_seq: int | None = None, after_seq: int | None = None
    ) -> list[LedgerEntry]:
        """Return entries without their items, the newest first, at most `limit` that lie next to a bound.

        Args:
            account_id: Account.
            limit: Number of entries.
            before_seq: Return the entries just before this one; None for the newest.
            after_seq: Return the entries just after this one instead.
        """

    async def find_item(self, account_id: str, item_key: str) -> int | None:
        """Return the number of the entry that charged an item."""

    async def seq_at(self, account_id: str, moment: int) -> int:
        """Return the number of the last entry made at `moment` (microseconds) or before; 0 if there is none."""

    async def drift_units(self) -> int:
        """Units used in all accounts' budgets, less those of charged items that were not refunded: always 0."""

    async def published_keys(self) -> list[PublicKey]:
        """Return public signing keys, oldest first."""

    async def ping(self) -> None:
        """Check that the ledger can be written; for readiness."""


class Accounts(Protocol):
    """Accounts, keys and prices as the vendor's own staff use them. Every act is logged, in its own transaction.

    Every method may raise `LedgerUnavailable`. An act that is given a `request_id` happens once: the same act under
    the same id returns what the first one returned, another act under it is an `InvalidRequest`.
    """

    def acting_as(self, actor: str, *, on_replay: Callable[[], None] = ...) -> "Accounts":
        """Return the same accounts for one member of the staff; an act that was done before calls `on_replay`."""

    def create_account(
        self, name: str, *, budget_units: int, currency: str = "EUR", request_id: str | None = None
    ) -> Account:
        """Open an account; a budget above 0 is its first top-up entry.

        Raises:
            InvalidRequest: The name is taken or malformed, or the budget is out of range.
        """

    def find_account(self, name: str) -> Account:
        """Return the account of this id or, if no account has it, of this name.

        Raises:
            NotFound: There is none.
        """

    def accounts(self) -> list[Account]:
        """Return all accounts by name."""

    def create_key(
        self,
        account: Account,
        *,
        scopes: frozenset[Scope],
        limit_units: int | None = None,
        lifetime_seconds: int | None = None,
        name: str = "",
        request_id: str | None = None,
    ) -> tuple[ApiKey, str | None]:
        """Make an API key and its secret, which is stored as a hash only; None when the key was made before.

        Args:
            account: Account that pays.
            scopes: What the key may be used for.
            limit_units: Budget of the key alone, beside the account's.
            lifetime_seconds: Its lifetime, which is the same when the act is tried again; None for ever.
            name: Purpose of the key.
            request_id: Name of the act.

        Raises:
            InvalidRequest: Something is unknown or out of range.
        """

    def keys(self, account_id: str) -> list[ApiKey]:
        """Return the account's API keys, oldest first."""

    def key_budgets(self, account_id: str) -> Mapping[str, Budget]:
        """Return the keys' own budgets by key id; a key without one is not there."""

    def revoke_key(self, key_id: str, *, request_id: str | None = None) -> ApiKey:
        """End a key, named by its id or its prefix, at once; revoking it again changes nothing.

        Raises:
            NotFound: There is no such key.
            InvalidRequest: The prefix fits several keys.
        """

    def top_up(
        self, account: Account, units: int, *, note: str | None = None, request_id: str | None = None
    ) -> Account:
        """Raise the account's limit by `units`, as a ledger entry.

        Raises:
            InvalidRequest: The units or the note are out of range.
        """

    def refund(self, account: Account, seq: int, units: int, note: str, *, request_id: str | None = None) -> Account:
        """Give `units` of the charge entry `seq` back, as a ledger entry.

        Raises:
            NotFound: No charge has this seq.
            InvalidRequest: There are more units than the charge, less earlier refunds.
        """

    def set_price(
        self, model_id: str, modality: Modality, unit_price_micro: int, currency: str, *, request_id: str | None = None
    ) -> Price:
        """Make a new version of the price, in force at once.

        Raises:
            InvalidRequest: The price is out of range, or the currency is not three capital letters.
        """

    def prices(self) -> list[Price]:
        """Return all versions of all prices, oldest first."""

    def acts(self, *, after_id: int, limit: int) -> list[AdminAct]:
        """Return logged acts `after_id + 1 ...` in order, at most `limit`."""


class Clock(Protocol):
    """The time."""

    def now(self) -> int:
        """Microseconds since the Unix epoch, UTC."""
