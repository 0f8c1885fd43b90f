"""What a customer does with the API keys of its account, by one of them: look at them, make another, revoke one.

A key does here at most what it may do itself. A key with a budget or an expiry of its own makes none, or the two would
spend more than the one, and for longer; any key may revoke itself. No key of the staff is made or revoked here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from vl2v_vendor.domain.accounts import DEFAULT_SCOPES, ApiKey, Budget, Scope
from vl2v_vendor.domain.errors import Forbidden, InvalidRequest, NotFound
from vl2v_vendor.domain.ports import Accounts
from vl2v_vendor.service.administration import AdminContext, Administration, lifetime_of

MAX_KEYS = 200
"""Keys of one account, revoked ones too, beyond which a customer makes none."""


@dataclass(frozen=True, slots=True)
class ListedKey:
    """An API key, its own budget if it has one, and whether the key that asks may revoke it."""

    key: ApiKey
    budget: Budget | None
    may_revoke: bool


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a new key is to be like."""

    name: str
    scopes: frozenset[Scope]
    limit_units: int | None
    expires_days: float | None


@dataclass(eq=False, slots=True)
class CustomerKeys:
    """The API keys of the caller's account. Every method may raise as `Administration`'s."""

    administration: Administration

    async def keys(self, caller: ApiKey) -> Sequence[ListedKey]:
        """Return the account's keys, oldest first."""
        return await self.administration.read(lambda accounts: _listed(accounts, caller))

    async def make(self, context: AdminContext, terms: KeyTerms) -> tuple[ApiKey, str | None]:
        """Make a key; return it with its secret, which is None when the act had been done before.

        Raises:
            Forbidden: The caller may make no such key.
            InvalidRequest: Something is out of range, or the account has too many keys.
        """
        lifetime_seconds = lifetime_of(terms.expires_days)

        def make(accounts: Accounts, request_id: str) -> tuple[ApiKey, str | None]:
            if not terms.scopes:
                raise InvalidRequest("choose at least one thing that the key may do")
            listed = _listed(accounts, context.caller)
            if missing := terms.scopes - grantable(context.caller, listed):
                raise Forbidden(f"this key may make no key with the scope `{'`, `'.join(sorted(missing))}`")
            if len(listed) >= MAX_KEYS:
                raise InvalidRequest(f"the account has {len(listed)} keys already; ask the vendor for another")
            return accounts.create_key(
                accounts.find_account(context.caller.account_id),
                scopes=terms.scopes,
                limit_units=terms.limit_units,
                lifetime_seconds=lifetime_seconds,
                name=terms.name,
                request_id=request_id,
            )

        return await self.administration.act(context, make)

    async def revoke(self, context: AdminContext, key_id: str) -> ApiKey:
        """End a key of the account at once; again changes nothing.

        Raises:
            NotFound: The account has no such key.
            Forbidden: The caller may not revoke it.
        """

        def revoke(accounts: Accounts, request_id: str) -> ApiKey:
            found = [one for one in _listed(accounts, context.caller) if one.key.id == key_id]
            if not found:
                raise NotFound("the account has no such key")
            (one,) = found
            if not one.may_revoke:
                raise Forbidden("this key may not revoke that one; log in with one that may do as much")
            if one.key.revoked_at is not None:  # or the staff's log would grow with each time
                return one.key
            return accounts.revoke_key(key_id, request_id=request_id)

        return await self.administration.act(context, revoke)


def grantable(caller: ApiKey, listed: Sequence[ListedKey]) -> frozenset[Scope]:
    """Return the scopes that a key made by `caller` may have."""
    own_budget = next((one.budget for one in listed if one.key.id == caller.id), None)
    return caller.scopes & DEFAULT_SCOPES if _is_unlimited(caller, own_budget) else frozenset()


def _is_unlimited(caller: ApiKey, own_budget: Budget | None) -> bool:
    return caller.expires_at is None and own_budget is None


def _listed(accounts: Accounts, caller: ApiKey) -> list[ListedKey]:
    keys, budgets = accounts.keys(caller.account_id), accounts.key_budgets(caller.account_id)
    is_unlimited = _is_unlimited(caller, budgets.get(caller.id))
    revocable = caller.scopes & DEFAULT_SCOPES if is_unlimited else frozenset()
    return [ListedKey(key, budgets.get(key.id), key.id == caller.id or key.scopes <= revocable) for key in keys]
