"""Which purchase an item is: its key, and the fingerprint by which the vendor recognises its content."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from vl2v_contract.identity import ITEM_KEY_HEX_LENGTH
from vl2v_vendor.domain.errors import InvalidRequest, ItemFailure
from vl2v_vendor.service.preparation import PreparedItem

_ITEM_KEY = re.compile(rf"[0-9a-f]{{{ITEM_KEY_HEX_LENGTH}}}")
_MAX_IDEMPOTENCY_KEY_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Line:
    """One item of a request under its name.

    Attributes:
        item_key: the purchase.
        fingerprint: the content, keyed with the vendor's pepper.
        prepared: what the model takes.
    """

    item_key: str
    fingerprint: str
    prepared: PreparedItem


def is_item_key(item_key: str) -> bool:
    """Whether an item key could have been made by a client."""
    return _ITEM_KEY.fullmatch(item_key) is not None


def check_item_key(item_key: str) -> None:
    """Check that an item key could have been made by a client.

    Raises:
        ItemFailure: invalid_item_key.
    """
    if not is_item_key(item_key):
        raise ItemFailure("invalid_item_key", f"an item key is {ITEM_KEY_HEX_LENGTH} lower-case hexadecimal digits")


def name_items(
    sent_keys: Sequence[str | None] | None, count: int, *, account_id: str, idempotency_key: str | None
) -> list[str]:
    """One key per item: the client's own, else one made of the `Idempotency-Key` header, else a random one.

    Raises:
        InvalidRequest: another number of keys than items, or an unusable header.
    """
    if sent_keys is not None and len(sent_keys) != count:
        raise InvalidRequest(f"{len(sent_keys)} item keys for {count} items; send one per item, or none")
    check_idempotency_key(idempotency_key)
    keys = sent_keys if sent_keys is not None else [None] * count
    return [key if key is not None else _make_key(account_id, idempotency_key, index) for index, key in enumerate(keys)]


def check_idempotency_key(idempotency_key: str | None) -> None:
    """Refuse an `Idempotency-Key` header that is empty or too long; raises InvalidRequest."""
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= _MAX_IDEMPOTENCY_KEY_LENGTH:
        raise InvalidRequest(f"`Idempotency-Key` has 1 to {_MAX_IDEMPOTENCY_KEY_LENGTH} characters")


def _make_key(account_id: str, idempotency_key: str | None, index: int) -> str:
    if idempotency_key is None:
        return secrets.token_hex(ITEM_KEY_HEX_LENGTH // 2)
    message = f"vl2v-idempotency-v1\n{account_id}\n{idempotency_key}\n{index}"
    return hashlib.sha256(message.encode()).hexdigest()
