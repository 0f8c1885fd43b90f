"""The ledger port in memory: the same promises, no database."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from vl2v_contract.chain import GENESIS_HASH, ChainEnd, ChargedItem, EntryOrigin, LedgerEntry
from vl2v_contract.identity import Modality
from vl2v_contract.records import PublicKey, StatementEntry
from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, ApiKey, Budget, Budgets, Scope
from vl2v_vendor.domain.errors import BudgetExhausted, PriceChanged, UnknownModel
from vl2v_vendor.domain.ledger import Charge, ChargeOrder, Offer, PaidItem, Price
from vl2v_vendor.domain.ports import AccountTotals, LedgerHead, SignedEntries
from vl2v_vendor.keys.secrets import SecretSigner


@dataclass
class MemoryLedger:
    """One account; `charge` is atomic because it never awaits."""

    signer: SecretSigner
    limit_units: int = 100
    used_units: int = 0
    keys: dict[str, ApiKey] = field(default_factory=dict)
    prices: dict[tuple[str, Modality], Price] = field(default_factory=dict)
    paid: dict[str, PaidItem] = field(default_factory=dict)
    posted: list[StatementEntry] = field(default_factory=list)
    orders: list[ChargeOrder] = field(default_factory=list)
    ledger_id: str = "ledger_memory"
    account_id: str = "acct_memory"

    def issue_key(
        self,
        *,
        scopes: frozenset[Scope] = DEFAULT_SCOPES,
        expires_at: int | None = None,
        account_id: str | None = None,
    ) -> str:
        """A new API key's secret; an account of another name shares the one's money and items."""
        secret = f"vl2v_{len(self.keys):043d}"
        key_id = f"key_{len(self.keys):012d}"
        key = ApiKey(key_id, account_id or self.account_id, "acme", secret[:10], scopes, 1, expires_at, None)
        self.keys[hashlib.sha256(secret.encode()).hexdigest()] = key
        return secret

    def revoke(self, secret: str) -> None:
        name = hashlib.sha256(secret.encode()).hexdigest()
        self.keys[name] = replace(self.keys[name], revoked_at=2)

    def set_price(self, model_id: str, modality: Modality, unit_price_micro: int) -> None:
        price = Price(len(self.prices) + 1, model_id, modality, unit_price_micro, "EUR", 1)
        self.prices[model_id, modality] = price

    def forget_vectors(self) -> None:
        """All results are past their retention."""
        self.paid = {key: replace(item, vector=None) for key, item in self.paid.items()}

    async def find_key(self, secret_sha256: str) -> ApiKey | None:
        return self.keys.get(secret_sha256)

    async def offer(self, caller: ApiKey, model_id: str, modality: Modality, item_keys: Sequence[str]) -> Offer:
        return Offer(
            await self.price(model_id, modality),
            await self.find_paid(caller.account_id, item_keys),
            await self.budgets(caller.account_id, caller.id),
        )

    async def find_paid(self, account_id: str, item_keys: Sequence[str]) -> dict[str, PaidItem]:
        return {key: self.paid[key] for key in item_keys if key in self.paid}

    async def budgets(self, account_id: str, api_key_id: str) -> Budgets:
        return Budgets(Budget(self.limit_units, self.used_units), None)

    async def price(self, model_id: str, modality: Modality) -> Price:
        try:
            return self.prices[model_id, modality]
        except KeyError:
            raise UnknownModel(f"no price for {model_id}") from None

    async def charge(self, order: ChargeOrder) -> Charge:
        self.orders.append(order)
        price = self.prices[order.model_id, order.modality]
        if price.id != order.price_id:
            raise PriceChanged("the price moved")
        new = [item for item in order.items if item.item_key not in self.paid]
        room = self.limit_units - self.used_units
        if len(new) > room and not (order.allow_partial and room):
            raise BudgetExhausted(
                budget="account", limit_units=self.limit_units, remaining_units=room, wanted_units=len(new)
            )
        sold, refused = new[:room], new[room:]
        already = tuple(self.paid[item.item_key] for item in order.items if item.item_key in self.paid)
        posted = self._post(order, price, [ChargedItem(i.item_key, i.result_sha, i.units) for i in sold])
        for item in sold:
            self.paid[item.item_key] = PaidItem(
                item.item_key, len(self.posted), item.fingerprint, item.result_sha, order.model_id, order.weights_sha,
                order.precision, order.preprocessing_id, item.vector,
            )  # fmt: skip
        refused_keys = tuple(item.item_key for item in refused)
        return Charge(posted, already, refused_keys, await self.budgets(order.account_id, order.api_key_id))

    async def head(self, account_id: str) -> LedgerHead:
        seq, last = len(self.posted), self.posted[-1].entry_hash if self.posted else GENESIS_HASH
        return LedgerHead(seq, last, self.used_units, self.limit_units)

    async def entries(self, account_id: str, *, after_seq: int, limit: int) -> list[StatementEntry]:
        return self.posted[after_seq : after_seq + limit]

    async def signed_entries(self, account_id: str, *, after_seq: int, limit: int) -> SignedEntries:
        entries = tuple(await self.entries(account_id, after_seq=after_seq, limit=limit))
        signatures = tuple(self.signer.sign_entry(posted.entry, posted.entry_hash) for posted in entries)
        return SignedEntries(await self.head(account_id), entries, signatures)

    async def find_entries(self, account_id: str, seqs: Sequence[int]) -> list[StatementEntry]:
        return [self.posted[seq - 1] for seq in seqs]

    async def find_request(self, account_id: str, request_id: str) -> StatementEntry | None:
        return next((posted for posted in self.posted if posted.entry.request_id == request_id), None)

    async def totals(self, account_id: str) -> AccountTotals:
        amount_micro = sum(posted.entry.amount_micro for posted in self.posted)
        return AccountTotals(await self.head(account_id), "EUR", self.used_units, amount_micro, (), (), (), ())

    async def drift_units(self) -> int:
        return self.used_units - len(self.paid)

    async def published_keys(self) -> list[PublicKey]:
        return list(self.signer.published_keys)

    async def ping(self) -> None:
        return None

    def _post(self, order: ChargeOrder, price: Price, items: list[ChargedItem]) -> StatementEntry | None:
        if not items:
            return None
        self.used_units += len(items)
        end = ChainEnd(
            ledger_id=self.ledger_id,
            account_id=order.account_id,
            currency=price.currency,
            seq=len(self.posted),
            entry_hash=self.posted[-1].entry_hash if self.posted else GENESIS_HASH,
            used_units=self.used_units - len(items),
            limit_units=self.limit_units,
            created_at=1,
        )
        entry = LedgerEntry.charge(
            end, EntryOrigin(order.request_id, 1, self.signer.key_id), order, items, price.unit_price_micro
        )
        self.posted.append(StatementEntry(entry, entry.hash(), tuple(items)))
        return self.posted[-1]
