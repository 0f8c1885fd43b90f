"""Publishing the signing keys: entries name them, so they must be in the database before the first entry."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import asdict

from sqlalchemy import Connection, func, insert, select, update

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.domain.ports import Signer
from vl2v_vendor.ledger_sql.admin_acts import Act, log_act
from vl2v_vendor.ledger_sql.tables import signing_keys, vendor

_PUBLICATION_LOCK = 0x766C3276  # any number that nothing else in the database locks


class WrongSecrets(VendorError):
    """The secrets file belongs to another database, or is an old copy."""


def read_ledger_id(connection: Connection) -> str:
    """Return the vendor's name for ever, made with the database."""
    return str(connection.execute(select(vendor.c.ledger_id)).scalar_one())


def publish_keys(connection: Connection, signer: Signer) -> None:
    """Insert keys that are new, each with a row in the log of the staff's acts, and mark those that they replace.

    Raises:
        WrongSecrets: The signer does not hold all the keys that were published. If it holds none of them, its pepper
            is another one too, and no paid item would be recognised.
    """
    if connection.dialect.name == "postgresql":  # two replicas that start on a new database must not both found it
        connection.execute(select(func.pg_advisory_xact_lock(_PUBLICATION_LOCK)))
    retired = {row.key_id: row.retired_at for row in connection.execute(select(signing_keys))}
    _check_complete(retired.keys(), {key.key_id for key in signer.published_keys})
    for key in signer.published_keys:
        if key.key_id not in retired:
            connection.execute(insert(signing_keys).values(asdict(key)))
            if key.predecessor_id is not None:
                act = Act("rotate_signing_key", {"predecessor_id": key.predecessor_id})
                log_act(connection, act, {"key_id": key.key_id}, now=key.created_at)
        elif retired[key.key_id] != key.retired_at:
            connection.execute(
                update(signing_keys).where(signing_keys.c.key_id == key.key_id).values(retired_at=key.retired_at)
            )


def ensure_published(connection: Connection, signer: Signer) -> None:
    """Publish the signer's keys unless the one in use is published.

    That one may have been replaced: a server, or a copy of the secrets file, that has not yet seen the rotation goes
    on with it.

    Raises:
        WrongSecrets: The secrets file belongs to another database.
    """
    known = connection.execute(select(signing_keys.c.key_id).where(signing_keys.c.key_id == signer.key_id)).first()
    if known is None:
        publish_keys(connection, signer)


def _check_complete(published: Set[str], held: Set[str]) -> None:
    if published <= held:
        return
    if held <= published:
        raise WrongSecrets(
            "the secrets file is a copy from before the signing key was rotated; copy vendor-secrets.json from the "
            "machine where it was rotated, or restore its newest backup"
        )
    raise WrongSecrets(
        "the secrets file does not hold the keys that signed this ledger; "
        "restore the vendor-secrets.json that belongs to the database"
    )
