"""The staff's API: accounts, API keys, top-ups, refunds, prices, and the log of who did what.

Every request needs an API key with the scope `admin`. Units, money and times are those of `chain`.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from vl2v_contract.identity import MAX_INTEGER, Modality
from vl2v_contract.records import Count

Scope = Literal["embed", "billing", "admin"]

_Units = Annotated[int, Field(ge=1, le=MAX_INTEGER)]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="Three capital letters, ISO 4217.")]
_Note = Annotated[str, Field(max_length=1000, description="Goes into the ledger, such as an invoice number.")]


class _Request(BaseModel):
    # Strict: `true` or "5" is no number of queries.
    model_config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class NewAccount(_Request):
    """`POST /v1/admin/accounts`."""

    name: str = Field(min_length=1, max_length=128)
    budget_units: Count = Field(description="Queries that the account may spend; its first top-up.")
    currency: _Currency | None = Field(default=None, description="The vendor's own when absent.")


class NewTopUp(_Request):
    """`POST /v1/admin/accounts/{account}/topups`."""

    units: _Units = Field(description="Queries to add to the budget.")
    note: _Note | None = None


class NewRefund(_Request):
    """`POST /v1/admin/accounts/{account}/refunds`."""

    seq: _Units = Field(description="The charge's number in the account's statement.")
    units: _Units = Field(description="Queries to give back.")
    note: _Note = Field(min_length=1)


class NewKey(_Request):
    """`POST /v1/admin/accounts/{account}/keys`."""

    scopes: list[Scope] = Field(min_length=1)
    limit_units: Count | None = Field(default=None, description="A budget of the key's own, under the account's.")
    expires_days: float | None = Field(default=None, gt=0, le=36500, description="Never when absent.")
    name: str = Field(default="", max_length=128, description="What the key is for.")


class NewPrice(_Request):
    """`POST /v1/admin/prices`."""

    model_id: str = Field(min_length=1, max_length=256)
    modality: Modality
    unit_price_micro: Count
    currency: _Currency


class Account(_Frozen):
    """A customer and what is left of the budget."""

    id: str
    name: str
    currency: str
    created_at: int
    limit_units: int
    used_units: int
    remaining_units: int


class AccountList(_Frozen):
    """All accounts by name."""

    data: list[Account]


class ApiKey(_Frozen):
    """An API key without its secret."""

    id: str
    account_id: str
    account_name: str
    prefix: str = Field(description="The secret's first characters, which may be shown.")
    name: str
    scopes: list[Scope]
    created_at: int
    expires_at: int | None
    revoked_at: int | None


class IssuedKey(_Frozen):
    """A new API key; its secret is shown once."""

    key: ApiKey
    secret: str | None = Field(description="Null when an earlier request of this `Idempotency-Key` made the key.")
    notice: str


class ListedKey(ApiKey):
    """An API key and its own budget, if it has one."""

    limit_units: int | None
    remaining_units: int | None


class KeyList(_Frozen):
    """An account's API keys, oldest first."""

    data: list[ListedKey]


class PriceVersion(_Frozen):
    """One version of a price; the newest of a model's modality is in force."""

    price_id: int
    model_id: str
    modality: Modality
    unit_price_micro: int
    currency: str
    valid_from: int


class PriceVersionList(_Frozen):
    """All versions of all prices, oldest first."""

    data: list[PriceVersion]


class AdminAct(_Frozen):
    """One act of the staff."""

    id: int
    request_id: str = Field(description="Names the act; a top-up's or refund's ledger entry has the same.")
    act: str
    account_id: str | None
    actor: str | None = Field(
        description="An API key's id, `cli:` and the operating system's user, or `server`; null if it was not recorded."
    )
    parameters: dict[str, Any] = Field(description="What was asked for.")
    outcome: dict[str, Any] = Field(description="What came of it.")
    created_at: int


class AdminLog(_Frozen):
    """A page of the log, oldest first; ask after `next_after_id` until it is null."""

    data: list[AdminAct]
    next_after_id: int | None
