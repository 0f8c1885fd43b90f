"""Handing out API keys: the one act of the staff that takes more than one step."""

from __future__ import annotations

from dataclasses import dataclass

from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, Account, ApiKey, Scope, check_scopes
from vl2v_vendor.domain.errors import InvalidRequest, NotFound
from vl2v_vendor.domain.ports import Accounts, Clock

_DAY_MICRO = 86_400_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRequest:
    """What is asked for.

    Attributes:
        account_name: made with `budget_units` and `currency` if there is no such account.
        budget_units: the new account's budget; must be None for an account that exists.
        key_budget_units: a budget of the key's own, beside the account's.
        expires_days: None for a key that does not expire.
    """

    account_name: str
    budget_units: int | None = None
    currency: str = "EUR"
    key_budget_units: int | None = None
    scopes: frozenset[Scope] = DEFAULT_SCOPES
    expires_days: float | None = None
    name: str = ""


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A key and its secret, which can be shown only now."""

    account: Account
    key: ApiKey
    secret: str
    account_is_new: bool


def issue_key(accounts: Accounts, clock: Clock, request: KeyRequest) -> IssuedKey:
    """Make a key, and its account too if there is none of this name.

    Raises:
        InvalidRequest: `budget_units` for an account that exists, none for one that does not, or an invalid value.
    """
    if request.expires_days is not None and request.expires_days <= 0:
        raise InvalidRequest(f"a key cannot expire after {request.expires_days:g} days; give more than 0")
    # Checked first, so that a refused key does not leave a new account behind.
    check_scopes(request.scopes)
    account, is_new = _find_or_create(accounts, request)
    expires_at = None if request.expires_days is None else clock.now() + round(request.expires_days * _DAY_MICRO)
    key, secret = accounts.create_key(
        account,
        scopes=request.scopes,
        limit_units=request.key_budget_units,
        expires_at=expires_at,
        name=request.name,
    )
    return IssuedKey(account, key, secret, is_new)


def _find_or_create(accounts: Accounts, request: KeyRequest) -> tuple[Account, bool]:
    name = request.account_name
    try:
        account = accounts.find_account(name)
    except NotFound:
        if request.budget_units is None:
            raise InvalidRequest(f"there is no account {name} yet; give its budget with `--budget UNITS`") from None
        created = accounts.create_account(name, budget_units=request.budget_units, currency=request.currency)
        return created, True
    if request.budget_units is not None:
        budget = account.budget
        raise InvalidRequest(
            f"account {name} exists with {budget.remaining_units} of {budget.limit_units} queries left; "
            f"leave `--budget` out, and raise the budget with `vl2v-vendor accounts topup {name} UNITS`"
        )
    return account, False
