"""A small shop for the ledger's tests: one account with a key and a price, and builders for orders."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TypeVar

import numpy as np
from sqlalchemy import Engine

from vl2v_contract.records import SigningKey, successor_message
from vl2v_contract.vectors import result_sha
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, Account, ApiKey
from vl2v_vendor.domain.ledger import ChargeOrder, NewItem, Offer, Vector
from vl2v_vendor.keys.secrets import SecretSigner, StoredKey
from vl2v_vendor.ledger_sql.reading import snapshot
from vl2v_vendor.ledger_sql.scan import verify_ledger
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger

T = TypeVar("T")

MODEL = "tiny / test"
RETENTION_SECONDS = 30 * 86_400


class FakeClock:
    """A clock that a test sets; it starts at 2026-01-01 UTC."""

    def __init__(self, now: int = 1_767_225_600_000_000) -> None:
        self.time = now

    def now(self) -> int:
        return self.time


def fixed_signer(seed: int = 1) -> SecretSigner:
    return SecretSigner((StoredKey(SigningKey.from_seed(bytes([seed]) * 32), 1, None),))


def rotated_signer(seed: int = 1, new_seed: int = 2) -> SecretSigner:
    """`fixed_signer(seed)` after its key was replaced."""
    first, second = (SigningKey.from_seed(bytes([number]) * 32) for number in (seed, new_seed))
    vouched = first.sign(successor_message(second.public_key))
    return SecretSigner((StoredKey(first, 1, None), StoredKey(second, 2, vouched)))


def item_key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def vector_of(name: str, dimension: int = 8) -> Vector:
    """A unit vector `[dimension]` that depends on the name alone."""
    seed = int(item_key(name)[:8], 16)
    vector = np.random.default_rng(seed).normal(size=dimension).astype(np.float32)
    return vector / np.linalg.norm(vector)


def new_item(name: str, *, fingerprint: str | None = None) -> NewItem:
    vector = vector_of(name)
    return NewItem(item_key(name), fingerprint or item_key(f"fingerprint of {name}"), result_sha(vector), vector)


def make_order(
    account_id: str,
    api_key_id: str,
    request_id: str,
    *,
    price_id: int,
    items: tuple[NewItem, ...],
    allow_partial: bool,
) -> ChargeOrder:
    """An order for images of the model that the shop sells."""
    return ChargeOrder(
        account_id=account_id,
        api_key_id=api_key_id,
        request_id=request_id,
        endpoint="/v1/embeddings/images",
        modality="image",
        model_id=MODEL,
        weights_sha="a" * 64,
        precision="fp32",
        preprocessing_id="resize-8",
        price_id=price_id,
        items=items,
        allow_partial=allow_partial,
    )


@dataclass
class Shop:
    """One account, its key, and what is needed to charge it."""

    engine: Engine
    clock: FakeClock
    signer: SecretSigner
    accounts: SqlAccounts
    account: Account
    key: ApiKey
    secret: str
    price_id: int
    _requests: Iterable[int] = field(default_factory=lambda: count(1))

    def order(self, *names: str, allow_partial: bool = False, key: ApiKey | None = None) -> ChargeOrder:
        """An order for one image for each name."""
        return self.order_items(*map(new_item, names), allow_partial=allow_partial, key=key)

    def order_items(self, *items: NewItem, allow_partial: bool = False, key: ApiKey | None = None) -> ChargeOrder:
        bearer = key or self.key
        return make_order(
            bearer.account_id,
            bearer.id,
            f"req_{next(iter(self._requests)):024x}",
            price_id=self.price_id,
            items=items,
            allow_partial=allow_partial,
        )

    @asynccontextmanager
    async def open_ledger(self) -> AsyncIterator[SqlLedger]:
        ledger = SqlLedger(self.engine, signer=self.signer, clock=self.clock, retention_seconds=RETENTION_SECONDS)
        await ledger.start()
        try:
            yield ledger
        finally:
            await ledger.close()

    async def offer(self, ledger: SqlLedger, *names: str, key: ApiKey | None = None) -> Offer:
        """What a request for one image for each name is admitted by."""
        return await ledger.offer(key or self.key, MODEL, "image", [item_key(name) for name in names])

    def run(self, story: Callable[[SqlLedger], Awaitable[T]]) -> T:
        """Run a story against a ledger that lives as long as the story."""

        async def told() -> T:
            async with self.open_ledger() as ledger:
                return await story(ledger)

        return asyncio.run(told())

    def charge(self, order: ChargeOrder) -> object:
        return self.run(lambda ledger: ledger.charge(order))

    def set_price(self, unit_price_micro: int) -> int:
        """A new price for images; returns its id."""
        return self.accounts.set_price(MODEL, "image", unit_price_micro, "EUR").id

    def used_units(self) -> int:
        return self.accounts.find_account(self.account.name).budget.used_units


def open_shop(engine: Engine, *, budget_units: int = 10, key_units: int | None = None) -> Shop:
    clock = FakeClock()
    signer = fixed_signer()
    accounts = SqlAccounts(engine, signer=signer, clock=clock)
    account = accounts.create_account("acme", budget_units=budget_units)
    key, secret = accounts.create_key(account, scopes=DEFAULT_SCOPES, limit_units=key_units)
    assert secret is not None, "only a key that was made before has none to show"
    price = accounts.set_price(MODEL, "image", 100, "EUR")
    return Shop(engine, clock, signer, accounts, account, key, secret, price.id)


def without(order: ChargeOrder, **changes: object) -> ChargeOrder:
    """The order with some fields replaced."""
    return replace(order, **changes)  # type: ignore[arg-type]


def problems_of(engine: Engine) -> list[str]:
    """What `ledger verify` finds wrong."""
    with snapshot(engine) as connection:
        report = verify_ledger(connection)
    return [f"{problem.account_id} {problem.seq}: {problem.code}, {problem.detail}" for problem in report.problems]
