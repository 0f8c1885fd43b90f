"""Which purchase an item is: its item key."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence

from vl2v_contract.identity import ITEM_KEY_HEX_LENGTH
from vl2v_vendor.domain.errors import InvalidRequest, ItemFailure

_ITEM_KEY = re.compile(rf"[0-9a-f]{{{ITEM_KEY_HEX_LENGTH}}}")
_MAX_IDEMPOTENCY_KEY_LENGTH = 255


def check_item_key(item_key: str) -> ItemFailure | None:
    """Return the failure of an item key that no client could have made, else None."""
    if _ITEM_KEY.fullmatch(item_key):
        return None
    return ItemFailure("invalid_item_key", f"an item key is {ITEM_KEY_HEX_LENGTH} lower-case hexadecimal digits")


def name_items(
    sent_keys: Sequence[str | None] | None, count: int, *, account_id: str, idempotency_key: str | None
) -> list[str]:
    """Return one key per item: the client's own, else one made of the `Idempotency-Key` header, else a random one.

    Raises:
        InvalidRequest: The numbers of keys and items differ, or the header is unusable.
    """
    if sent_keys is not None and len(sent_keys) != count:
        raise InvalidRequest(f"{len(sent_keys)} item keys for {count} items; send one per item, or none")
    if idempotency_key is not None:
        check_idempotency_key(idempotency_key)
    keys: list[str] = []
    for index, key in enumerate(sent_keys if sent_keys is not None else [None] * count):
        if key is not None:
            keys.append(key)
        elif idempotency_key is not None:
            message = f"vl2v-idempotency-v1\n{account_id}\n{idempotency_key}\n{index}"
            keys.append(hashlib.sha256(message.encode()).hexdigest())
        else:
            keys.append(secrets.token_hex(ITEM_KEY_HEX_LENGTH // 2))
    return keys


def check_idempotency_key(idempotency_key: str) -> None:
    """Check the length of an `Idempotency-Key` header.

    Raises:
        InvalidRequest: The header is empty or too long.
    """
    if not 1 <= len(idempotency_key) <= _MAX_IDEMPOTENCY_KEY_LENGTH:
        raise InvalidRequest(f"`Idempotency-Key` has 1 to {_MAX_IDEMPOTENCY_KEY_LENGTH} characters")
