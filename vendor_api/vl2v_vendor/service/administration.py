"""The staff's acts over the network: each is done once under its name, and the log says whose key did it."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from vl2v_contract.identity import Modality
from vl2v_contract.records import Receipt
from vl2v_vendor.domain.accounts import Account, AdminAct, ApiKey, Budget, Scope
from vl2v_vendor.domain.errors import InvalidRequest, LedgerUnavailable, OutcomeUnknown
from vl2v_vendor.domain.ledger import Price
from vl2v_vendor.domain.ports import Accounts
from vl2v_vendor.service.audit import Audit
from vl2v_vendor.service.key_issue import lifetime_of, usual_currency
from vl2v_vendor.service.preparation import check_idempotency_key

MAX_PAGE_ACTS = 1000

_DEADLINE_SECONDS = 1.5
"""After this a caller is refused with LedgerUnavailable, whatever the database does: within 2 s at the client."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class AdminContext:
    """Who acts, and the name of the act, if the request gives one: `Idempotency-Key`."""

    caller: ApiKey
    idempotency_key: str | None = None

    def request_id(self) -> str:
        """Derive the act's id from key and name, so that two administrators' names never clash; else a random one.

        Raises:
            InvalidRequest: The name is empty or too long.
        """
        if self.idempotency_key is None:
            return f"adm_{secrets.token_hex(12)}"
        check_idempotency_key(self.idempotency_key)
        named = f"vl2v-admin-v1\n{self.caller.id}\n{self.idempotency_key}"
        return f"adm_{hashlib.sha256(named.encode()).hexdigest()[:48]}"


@dataclass(frozen=True, slots=True)
class ActResult(Generic[_T]):
    """The result of an act, and whether it had been done before."""

    result: _T
    replayed: bool


@dataclass(frozen=True, slots=True)
class KeyList:
    """An account's keys, oldest first, and the own budgets of those that have one, by key id."""

    keys: tuple[ApiKey, ...]
    budgets: Mapping[str, Budget]


@dataclass(frozen=True, slots=True)
class ActPage:
    """A page of the log; ask after `next_after_id` until it is None."""

    acts: tuple[AdminAct, ...]
    next_after_id: int | None


class Administration:
    """Accounts, keys and prices for administrators.

    Every method may raise `LedgerUnavailable`; an act without a name raises `OutcomeUnknown` instead.

    Args:
        accounts: Accounts, keys and prices.
        audit: Source of the receipts of top-ups and refunds.
        executor: Threads that wait for the database.
        currency: Currency of accounts that are opened without one before there is a price.
    """

    def __init__(self, accounts: Accounts, audit: Audit, executor: Executor, *, currency: str) -> None:
        self._accounts = accounts
        self._audit = audit
        self._executor = executor
        self._currency = currency

    async def create_account(
        self, context: AdminContext, name: str, budget_units: int, currency: str | None
    ) -> ActResult[Account]:
        """Open an account; raises InvalidRequest if the name is taken or something is out of range."""
        return await self._act(
            context,
            lambda accounts, request_id: accounts.create_account(
                name,
                budget_units=budget_units,
                currency=currency or usual_currency(accounts, self._currency),
                request_id=request_id,
            ),
        )

    async def top_up(self, context: AdminContext, account: str, units: int, note: str | None) -> ActResult[Receipt]:
        """Raise an account's limit; raises NotFound or InvalidRequest."""
        return await self._post(
            context,
            lambda accounts, request_id: accounts.top_up(
                accounts.find_account(account), units, note=note, request_id=request_id
            ),
        )

    async def refund(self, context: AdminContext, account: str, seq: int, units: int, note: str) -> ActResult[Receipt]:
        """Give units of a charge back; raises NotFound or InvalidRequest."""
        return await self._post(
            context,
            lambda accounts, request_id: accounts.refund(
                accounts.find_account(account), seq, units, note, request_id=request_id
            ),
        )

    async def create_key(
        self,
        context: AdminContext,
        account: str,
        *,
        scopes: frozenset[Scope],
        limit_units: int | None,
        expires_days: float | None,
        name: str,
    ) -> ActResult[tuple[ApiKey, str | None]]:
        """Make an API key of an account that exists; raises NotFound or InvalidRequest.

        Its secret is shown only now: it is None if the key was made before.
        """
        lifetime_seconds = lifetime_of(expires_days)
        return await self._act(
            context,
            lambda accounts, request_id: accounts.create_key(
                accounts.find_account(account),
                scopes=scopes,
                limit_units=limit_units,
                lifetime_seconds=lifetime_seconds,
                name=name,
                request_id=request_id,
            ),
        )

    async def revoke_key(self, context: AdminContext, key: str) -> ActResult[ApiKey]:
        """End a key at once; revoking it again changes nothing. Raises NotFound or InvalidRequest."""
        return await self._act(context, lambda accounts, request_id: accounts.revoke_key(key, request_id=request_id))

    async def set_price(
        self, context: AdminContext, model_id: str, modality: Modality, unit_price_micro: int, currency: str
    ) -> ActResult[Price]:
        """Make a new version of a price, in force at once; raises InvalidRequest if out of range."""
        return await self._act(
            context,
            lambda accounts, request_id: accounts.set_price(
                model_id, modality, unit_price_micro, currency, request_id=request_id
            ),
        )

    async def accounts(self) -> list[Account]:
        """Return all accounts by name."""
        return await self._wait(self._accounts.accounts)

    async def account(self, account: str) -> Account:
        """Return the account of this id or name; raises NotFound."""
        return await self._wait(lambda: self._accounts.find_account(account))

    async def keys(self, account: str) -> KeyList:
        """Return an account's keys with their budgets; raises NotFound."""

        def read() -> KeyList:
            found = self._accounts.find_account(account)
            return KeyList(tuple(self._accounts.keys(found)), self._accounts.key_budgets(found))

        return await self._wait(read)

    async def prices(self) -> list[Price]:
        """Return all versions of all prices, oldest first."""
        return await self._wait(self._accounts.prices)

    async def log(self, after_id: int, limit: int) -> ActPage:
        """Return a page of at most `limit` acts after `after_id`, oldest first.

        Raises:
            InvalidRequest: `after_id` below 0, or `limit` not in 1 to 1000.
        """
        if after_id < 0 or not 1 <= limit <= MAX_PAGE_ACTS:
            raise InvalidRequest(f"a page has after_id 0 or more and a limit of 1 to {MAX_PAGE_ACTS}")
        acts = await self._wait(lambda: self._accounts.acts(after_id=after_id, limit=limit + 1))
        page = tuple(acts[:limit])
        return ActPage(page, page[-1].id if len(acts) > limit else None)

    async def _post(self, context: AdminContext, act: Callable[[Accounts, str], Account]) -> ActResult[Receipt]:
        """Do an act that makes a ledger entry; the answer is the entry's receipt, the same one for ever."""
        request_id = context.request_id()
        done = await self._act(context, act, request_id)
        with _confirmed(context):
            record = await self._audit.request(done.result.id, request_id)
        return ActResult(record.receipt, done.replayed)

    async def _act(
        self, context: AdminContext, act: Callable[[Accounts, str], _T], request_id: str | None = None
    ) -> ActResult[_T]:
        name = request_id or context.request_id()
        replays: list[bool] = []
        accounts = self._accounts.acting_as(context.caller.id, on_replay=lambda: replays.append(True))
        with _confirmed(context):
            result = await self._wait(lambda: act(accounts, name))
        return ActResult(result, bool(replays))

    async def _wait(self, work: Callable[[], _T]) -> _T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_DEADLINE_SECONDS):
                return await loop.run_in_executor(self._executor, work)
        except TimeoutError as error:
            raise LedgerUnavailable("the ledger did not answer in time; try again") from error


@contextmanager
def _confirmed(context: AdminContext) -> Iterator[None]:
    """Raise OutcomeUnknown where the ledger fails an act without a name: it may have been done."""
    try:
        yield
    except LedgerUnavailable as error:
        if context.idempotency_key is not None:
            raise
        raise OutcomeUnknown(
            "the ledger did not confirm this act; before you send it again look into /v1/admin/log. "
            "With an `Idempotency-Key` a retry is always safe"
        ) from error
