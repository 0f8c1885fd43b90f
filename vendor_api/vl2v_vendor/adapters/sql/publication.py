"""Publishing the signing keys: entries name them, so they must be in the database before the first entry."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, func, insert, select, update

from vl2v_vendor.adapters.sql.tables import signing_keys, vendor
from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.domain.ports import Signer

_PUBLICATION_LOCK = 0x766C3276  # any number that nothing else in the database locks


class WrongSecrets(VendorError):
    """The secrets file belongs to another database."""


def read_ledger_id(connection: Connection) -> str:
    """The vendor's name for ever, made with the database."""
    return str(connection.execute(select(vendor.c.ledger_id)).scalar_one())


def publish_keys(connection: Connection, signer: Signer) -> None:
    """Insert keys that are new and mark those that were replaced.

    Raises:
        WrongSecrets: the database was signed by keys that the signer does not hold. Its pepper would be another
            one too, and no paid item would be recognised.
    """
    if connection.dialect.name == "postgresql":  # two replicas that start on a new database must not both found it
        connection.execute(select(func.pg_advisory_xact_lock(_PUBLICATION_LOCK)))
    retired = {row.key_id: row.retired_at for row in connection.execute(select(signing_keys))}
    held = {key.key_id for key in signer.published_keys}
    if not held.issuperset(retired):
        raise WrongSecrets(
            "the secrets file does not hold the keys that signed this ledger; "
            "restore the vendor-secrets.json that belongs to the database"
        )
    for key in signer.published_keys:
        if key.key_id not in retired:
            connection.execute(insert(signing_keys).values(asdict(key)))
        elif retired[key.key_id] != key.retired_at:
            connection.execute(
                update(signing_keys).where(signing_keys.c.key_id == key.key_id).values(retired_at=key.retired_at)
            )
