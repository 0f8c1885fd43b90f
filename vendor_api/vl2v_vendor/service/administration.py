"""The staff's acts: each is done once under its name, and the log says who did it.

`Administration` is for administrators over the network, `issue_key` for the command line.
"""

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeVar

from vl2v_contract.records import Receipt
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, Account, ApiKey, Scope, check_scopes
from vl2v_vendor.domain.errors import InvalidRequest, LedgerUnavailable, NotFound, OutcomeUnknown
from vl2v_vendor.domain.ports import Accounts
from vl2v_vendor.service.audit import Audit
from vl2v_vendor.service.preparation import check_idempotency_key

_DEADLINE_SECONDS = 1.5
"""After this a caller is refused with LedgerUnavailable, whatever the database does: within 2 s at the client."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class AdminContext:
    """Who acts, and under which name, if any; `on_replay` is called if the act had been done before."""

    caller: ApiKey
    idempotency_key: str | None
    on_replay: Callable[[], None]

    @cached_property
    def request_id(self) -> str:
        """The act's id, derived from key and name, so that two administrators' names never clash; else a random one.

        Raises:
            InvalidRequest: The name is empty or too long.
        """
        if self.idempotency_key is None:
            return f"adm_{secrets.token_hex(12)}"
        check_idempotency_key(self.idempotency_key)
        named = f"vl2v-admin-v1\n{self.caller.id}\n{self.idempotency_key}"
        return f"adm_{hashlib.sha256(named.encode()).hexdigest()[:48]}"

    @contextmanager
    def confirmed(self) -> Iterator[None]:
        """Turn the ledger's failure into OutcomeUnknown for an act without a name: it may have been done.

        Raises:
            OutcomeUnknown: The ledger did not confirm the act.
        """
        try:
            yield
        except LedgerUnavailable as error:
            if self.idempotency_key is not None:
                raise
            raise OutcomeUnknown(
                "the ledger did not confirm this act; before you send it again look into /v1/admin/log. "
                "With an `Idempotency-Key` a retry is always safe"
            ) from error


@dataclass(eq=False, slots=True)
class Administration:
    """Accounts, keys and prices for administrators.

    Every method may raise `LedgerUnavailable`; an act without a name raises `OutcomeUnknown` instead.
    `currency` is that of accounts that are opened without one before there is a price.
    """

    accounts: Accounts
    audit: Audit
    executor: Executor
    currency: str

    async def read(self, query: Callable[[Accounts], _T]) -> _T:
        """Ask the accounts something.

        Raises:
            LedgerUnavailable: There is no answer in time.
        """
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return await asyncio.get_running_loop().run_in_executor(self.executor, query, self.accounts)
        except TimeoutError as error:
            raise LedgerUnavailable("the ledger did not answer in time; try again") from error

    async def act(self, context: AdminContext, act: Callable[[Accounts, str], _T]) -> _T:
        """Do one act, given the accounts as the caller sees them and the request id that names the act."""
        name = context.request_id
        with context.confirmed():
            return await self.read(
                lambda accounts: act(accounts.acting_as(context.caller.id, on_replay=context.on_replay), name)
            )

    async def post(self, context: AdminContext, act: Callable[[Accounts, str], Account]) -> Receipt:
        """Do an act that makes a ledger entry; return the entry's receipt, the same one for ever."""
        account = await self.act(context, act)
        with context.confirmed():
            return (await self.audit.request(account.id, context.request_id)).receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What is asked for.

    Attributes:
        account_name: Account of the key, made with `budget_units` and `currency` if there is no such account.
        budget_units: Budget of a new account; must be None for an account that exists.
        key_budget_units: Budget of the key alone, beside the account's.
        expires_days: Lifetime in days; None for a key that does not expire.
        request_id: Name of the request; tried again under it, nothing new is made.
    """

    account_name: str
    budget_units: int | None = None
    currency: str = "EUR"
    key_budget_units: int | None = None
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    expires_days: float | None = None
    name: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key and its secret, which can be shown only now: None when an earlier request of this id made the key."""

    account: Account
    key: ApiKey
    secret: str | None
    account_is_new: bool


def usual_currency(accounts: Accounts, otherwise: str) -> str:
    """Return the currency of the newest price, in which alone an account can buy; without a price, `otherwise`."""
    prices = accounts.prices()
    return prices[-1].currency if prices else otherwise


def issue_key(accounts: Accounts, request: KeyRequest) -> IssuedKey:
    """Make a key, and its account too if there is none of this name.

    Raises:
        InvalidRequest: `budget_units` for an account that exists, none for one that does not, or an invalid value.
    """
    # Checked first, so that a refused key does not leave a new account behind.
    check_scopes(request.scopes)
    lifetime_seconds = lifetime_of(request.expires_days)
    account, is_new = _find_or_create(accounts, request)
    key, secret = accounts.create_key(
        account,
        scopes=request.scopes,
        limit_units=request.key_budget_units,
        lifetime_seconds=lifetime_seconds,
        name=request.name,
        request_id=request.request_id,
    )
    return IssuedKey(account, key, secret, is_new)


def lifetime_of(expires_days: float | None) -> int | None:
    """Convert days to whole seconds, at least one.

    Raises:
        InvalidRequest: The number of days is not above 0.
    """
    if expires_days is None:
        return None
    if not expires_days > 0 or expires_days == float("inf"):
        raise InvalidRequest(f"a key cannot expire after {expires_days:g} days; give more than 0")
    return max(1, round(expires_days * 86_400))


def _find_or_create(accounts: Accounts, request: KeyRequest) -> tuple[Account, bool]:
    name, budget_units = request.account_name, request.budget_units
    create = partial(accounts.create_account, name, currency=request.currency)
    if request.request_id is not None and budget_units is not None:
        # An act of its own, so that whatever the first try came to, the same request comes to the same end.
        return create(budget_units=budget_units, request_id=f"{request.request_id}/account"), True
    try:
        account = accounts.find_account(name)
    except NotFound:
        if budget_units is None:
            raise InvalidRequest(f"there is no account {name} yet; give its budget with `--budget UNITS`") from None
        return create(budget_units=budget_units), True
    if budget_units is not None:
        budget = account.budget
        raise InvalidRequest(
            f"account {name} exists with {budget.remaining_units} of {budget.limit_units} queries left; "
            f"leave `--budget` out, and raise the budget with `vl2v-vendor accounts topup {name} UNITS`"
        )
    return account, False
