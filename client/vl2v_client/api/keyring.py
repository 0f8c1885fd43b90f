"""The vendor's public keys, trusted on first use: a later key counts only under its predecessor's signature."""

import base64
import itertools
from collections.abc import Sequence
from contextlib import suppress

from vl2v_client.core.errors import VendorChanged
from vl2v_contract.records import (
    PublicKey,
    Receipt,
    key_id_of,
    receipt_message,
    successor_message,
    verify,
)


class Keyring:
    """Keys that descend from the first one by an unbroken line of signatures.

    Args:
        ledger_id: The vendor's name.
        keys: Public keys as published, oldest first.
        pinned: The first key's base64, if this client has met the vendor before.

    Raises:
        VendorChanged: No key, another first key than the pinned one, or a successor that its predecessor never signed.
    """

    def __init__(self, ledger_id: str, keys: Sequence[PublicKey], *, pinned: str | None = None) -> None:
        if not keys:
            raise VendorChanged(f"vendor {ledger_id} publishes no signing key, so no receipt can be checked")
        if pinned is not None and keys[0].public_key != pinned:
            raise VendorChanged(
                f"vendor {ledger_id} now publishes another first signing key than the one it showed before: its "
                "receipts cannot be trusted. Ask the vendor; if the ledger was made anew, it must have a new ledger id"
            )
        _check_succession(ledger_id, keys)
        self.ledger_id = ledger_id
        self.keys = tuple(keys)
        self._by_id = {key.key_id: key.public_key for key in keys}

    def __contains__(self, key_id: str) -> bool:
        return key_id in self._by_id

    def signed_receipt(self, receipt: Receipt) -> bool:
        """Return whether an entry of this vendor hashes to the receipt's hash, signed by the key that it names."""
        entry, key_id = receipt.entry, receipt.key_id
        is_named = (entry.signing_key_id, entry.ledger_id) == (key_id, self.ledger_id)
        is_true = is_named and entry.hash() == receipt.entry_hash
        return is_true and self.verifies(key_id, receipt_message(receipt.entry_hash), receipt.signature)

    def verifies(self, key_id: str, message: bytes, signature: str) -> bool:
        """Return whether a message bears the signature of a key of this vendor."""
        return key_id in self and verify(self._by_id[key_id], message, signature)


def _check_succession(ledger_id: str, keys: Sequence[PublicKey]) -> None:
    for key in keys:
        with suppress(ValueError):
            if key_id_of(base64.b64decode(key.public_key, validate=True)) == key.key_id:
                continue
        raise VendorChanged(f"vendor {ledger_id} publishes signing key {key.key_id}, which is not a valid key")
    if (keys[0].predecessor_id, keys[0].predecessor_signature) != (None, None):
        raise VendorChanged(
            f"vendor {ledger_id} publishes signing key {keys[0].key_id} as its first, but not the predecessor that it "
            "names; ask the vendor for the whole line of keys"
        )
    for older, newer in itertools.pairwise(keys):
        signature = newer.predecessor_signature if newer.predecessor_id == older.key_id else None
        if not verify(older.public_key, successor_message(newer.public_key), signature or ""):
            raise VendorChanged(
                f"vendor {ledger_id} publishes signing key {newer.key_id} without its predecessor's signature; "
                "do not buy until the vendor has explained it"
            )
