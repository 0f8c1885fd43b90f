"""The books that `service.verification` checks: what it reads, and what it reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from vl2v_contract.chain import ChargedItem, EntryKind, LedgerEntry
from vl2v_contract.records import PublicKey
from vl2v_vendor.domain.accounts import Budget
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.domain.ports import LedgerHead

MAX_PROBLEMS = 1000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not add up; `account_id` is None where it concerns the vendor as a whole."""

    account_id: str | None
    seq: int | None
    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class LoggedAct:
    """An act of the staff that makes an entry, as the log has it."""

    name: str
    kind: EntryKind
    units: int


@dataclass(frozen=True, slots=True)
class AccountBooks:
    """What is kept about an account beside its entries.

    Attributes:
        key_budgets: Budgets of the API keys that have one, by key id.
        acts: Acts of the staff that made its entries, by request id.
        refunded_seqs: Charges that its refunds name.
    """

    account_id: str
    currency: str
    head: LedgerHead
    api_key_ids: frozenset[str]
    key_budgets: Mapping[str, Budget]
    acts: Mapping[str, LoggedAct]
    refunded_seqs: frozenset[int]


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A charged item as stored, and the hash of its vector if that is still kept."""

    seq: int
    index: int
    item: ChargedItem
    kept_sha: str | None


class LedgerScan(Protocol):
    """The whole ledger, read once, in one snapshot."""

    def ledger_id(self) -> str:
        """Return the vendor's name for ever."""

    def published_keys(self) -> Sequence[PublicKey]:
        """Return the signing keys, oldest first."""

    def accounts(self) -> Iterable[AccountBooks]:
        """Return every account."""

    def prices(self) -> Mapping[int, Price]:
        """Return every version of every price, by id."""

    def entries(self, account_id: str) -> Iterable[tuple[LedgerEntry, str]]:
        """Return the account's entries with their stored hashes, by seq."""

    def items(self, account_id: str) -> Iterable[StoredItem]:
        """Return the account's items by seq and index."""


@dataclass(slots=True)
class VerificationReport:
    """What was checked and what was found; at most `MAX_PROBLEMS` are spelled out."""

    accounts: int = 0
    entries: int = 0
    items: int = 0
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether everything adds up."""
        return self.problem_count == 0

    def add(self, account_id: str | None, seq: int | None, code: str, detail: str) -> None:
        """Note a problem."""
        self.problem_count += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(account_id, seq, code, detail))


@dataclass(frozen=True, slots=True)
class VendorBooks:
    """What all accounts share."""

    ledger_id: str
    signing_key_ids: frozenset[str]
    prices: Mapping[int, Price]
