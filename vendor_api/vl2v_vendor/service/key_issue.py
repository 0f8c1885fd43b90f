"""Handing out API keys: the one act of the staff that takes more than one step."""

from __future__ import annotations

from dataclasses import dataclass

from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, Account, ApiKey, Scope, check_scopes
from vl2v_vendor.domain.errors import InvalidRequest, NotFound
from vl2v_vendor.domain.ports import Accounts

_DAY_SECONDS = 86_400


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
    return max(1, round(expires_days * _DAY_SECONDS))


def _find_or_create(accounts: Accounts, request: KeyRequest) -> tuple[Account, bool]:
    name = request.account_name
    if request.request_id is not None and request.budget_units is not None:
        # An act of its own, so that whatever the first try came to, the same request comes to the same end.
        act_id = f"{request.request_id}/account"
        created = accounts.create_account(
            name, budget_units=request.budget_units, currency=request.currency, request_id=act_id
        )
        return created, True
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
