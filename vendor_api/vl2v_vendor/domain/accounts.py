"""Accounts, API keys and budgets."""

import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args
from unicodedata import is_normalized

from vl2v_vendor.domain.errors import Forbidden, InvalidRequest, KeyExpired, KeyRevoked

Scope = Literal["embed", "billing", "admin"]

DEFAULT_SCOPES: frozenset[Scope] = frozenset({"embed", "billing"})

ALL_SCOPES: frozenset[Scope] = frozenset(get_args(Scope))

_MAX_NAME_LENGTH = 128
_NOT_IN_NAMES = frozenset("/\\?#%")

MAX_KEY_NAME_LENGTH = 128
MAX_NOTE_LENGTH = 1000
MAX_MODEL_ID_LENGTH = 256
MAX_REQUEST_ID_LENGTH = 64

SECRET_PREFIX = "vl2v_"  # nosec B105 # a prefix
_SECRET = re.compile(rf"({SECRET_PREFIX}[\w-]{{8}})[\w-]+")


def generate_secret() -> str:
    """Generate the secret of an API key: `vl2v_` and 256 random bits, 43 URL-safe characters."""
    return SECRET_PREFIX + secrets.token_urlsafe(32)


def secret_sha256(secret: str) -> str:
    """Hash a secret as it is stored and looked up; a plain hash suffices for 256 random bits."""
    return hashlib.sha256(secret.encode("utf-8")).hexdigest()


def secret_prefix(secret: str) -> str:
    """Return the part of a secret that may be shown and logged, 48 of its 256 bits."""
    return secret[: len(SECRET_PREFIX) + 8]


def hide_secrets(text: str) -> str:
    """Cut each secret in a text to its prefix, so that the text may be logged."""
    return _SECRET.sub(r"\1...", text)


def check_account_name(name: str) -> None:
    """Refuse a name that a command line, a table, a URL or a spreadsheet could not hold as it is.

    Raises:
        InvalidRequest: Says what a name is made of.
    """
    is_shown_as_it_is = name == name.strip() and name.isprintable() and is_normalized("NFC", name)
    if len(name) > _MAX_NAME_LENGTH or not name[:1].isalnum() or not is_shown_as_it_is or _NOT_IN_NAMES & set(name):
        raise InvalidRequest(
            f"{name!r} is no account name; use 1 to {_MAX_NAME_LENGTH} printable characters, of which the first is a "
            f"letter or a digit, and none is {' '.join(sorted(_NOT_IN_NAMES))}"
        )


def check_text(what: str, value: str, max_length: int) -> None:
    """Refuse a text that not every database could store, or no table show, as it is; an empty one is fine.

    Raises:
        InvalidRequest: The text is too long, or has characters that do not print; names `what` it is.
    """
    if len(value) > max_length or not value.isprintable():
        raise InvalidRequest(f"{what} has at most {max_length} characters, all of them printable")


def check_scopes(scopes: frozenset[Scope]) -> None:
    """Refuse an unknown scope and a key without any.

    Raises:
        InvalidRequest: Names the unknown scopes and all valid ones.
    """
    unknown = scopes - ALL_SCOPES
    if unknown or not scopes:
        raise InvalidRequest(
            f"unknown scopes: {', '.join(sorted(unknown)) or 'none'}; "
            f"a key has one or more of {', '.join(sorted(ALL_SCOPES))}"
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """A number of queries that may be spent. `limit_units` and `used_units` are guarded; entries are the truth."""

    limit_units: int
    used_units: int

    @property
    def remaining_units(self) -> int:
        """What is left; a promise only inside the charge transaction."""
        return self.limit_units - self.used_units


@dataclass(frozen=True, slots=True)
class Account:
    """A customer, with the budget as it was when read."""

    id: str
    name: str
    currency: str
    created_at: int
    budget: Budget


@dataclass(frozen=True, slots=True)
class ApiKey:
    """An API key without its secret, which is shown once and stored as a hash."""

    id: str
    account_id: str
    account_name: str
    prefix: str
    scopes: frozenset[Scope]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    name: str = ""

    def require(self, scope: Scope, *, now: int) -> None:
        """Let the bearer act under `scope` at `now` (microseconds), or refuse.

        Raises:
            KeyRevoked: The key was revoked.
            KeyExpired: The key has expired.
            Forbidden: The key is good but lacks the scope.
        """
        if self.revoked_at is not None:
            raise KeyRevoked(f"API key {self.prefix}... is revoked; ask the vendor for a new one")
        if self.expires_at is not None and self.expires_at <= now:
            raise KeyExpired(f"API key {self.prefix}... has expired; ask the vendor for a new one")
        if scope not in self.scopes:
            raise Forbidden(f"API key {self.prefix}... lacks the scope `{scope}`")


@dataclass(frozen=True, slots=True)
class AdminAct:
    """One act of the staff, as it is logged.

    Attributes:
        request_id: Name of the act; tried again under it, it is not done again.
        actor: An API key's id, `cli:` and the name of the operating system's user, or `server`; None for acts of
            before this was recorded.
    """

    id: int
    request_id: str
    act: str
    account_id: str | None
    actor: str | None
    parameters: Mapping[str, Any]
    outcome: Mapping[str, Any]
    created_at: int


@dataclass(frozen=True, slots=True)
class Budgets:
    """The account's budget, and the key's own if it has one."""

    account: Budget
    key: Budget | None

    @property
    def tighter(self) -> tuple[str, Budget]:
        """Name and state of the budget that has less left: the `account`'s, or the `key`'s own."""
        if self.key is not None and self.key.remaining_units < self.account.remaining_units:
            return "key", self.key
        return "account", self.account
