"""Publishing the signing keys, since entries name them, and rotating them.

A new key is made in the secrets file, then published, then taken over by the servers that run.

In this order nothing is lost whenever a process dies: a key in the file that is not published yet is published by
whoever opens the database next, and a server signs with a key only once it is published.
"""

import asyncio
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sqlalchemy import Connection, Engine, func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from vl2v_contract.records import PublicKey
from vl2v_vendor.domain.errors import LedgerUnavailable, VendorError
from vl2v_vendor.host import SystemClock
from vl2v_vendor.keys.secrets import SecretsError, SecretSigner, load_secrets, rotate_signing_key
from vl2v_vendor.ledger_sql.admin_acts import Act, ActInProgress, begin_signing, log_act, make_request_id
from vl2v_vendor.ledger_sql.database import writing
from vl2v_vendor.ledger_sql.reading import read_newest_time
from vl2v_vendor.ledger_sql.tables import signing_keys

WATCH_SECONDS = 1.0
"""How soon a running server notices that its secrets file was replaced."""

_log = logging.getLogger(__name__)


def rotate_and_publish(engine: Engine, path: Path) -> PublicKey:
    """Make a successor of the current signing key and publish it; returns its public half.

    Raises:
        WrongSecrets: The file is not the newest of this database; rotating it would split the line of successors.
        SecretsError: The file cannot be used.
        LedgerUnavailable: The database cannot be written.
    """
    try:
        with writing(engine).begin() as connection:
            publish_keys(connection, load_secrets(path).signer())
            newest = read_newest_time(connection)
            signer = rotate_signing_key(path, not_before=newest).signer()
            publish_keys(connection, signer)
    except SQLAlchemyError as error:
        raise LedgerUnavailable(
            f"the ledger database cannot be written ({type(error).__name__}); `vl2v-vendor signing-key list` shows "
            "whether a new key is in the secrets file, which is then published as soon as it can be"
        ) from error
    return signer.published_keys[-1]


@dataclass(eq=False)
class SigningKeyWatch:
    """Makes a running server's signer take over the keys that a rotation, or an operator's copy, put into the file.

    A new key is published in the database before it is used; another pepper is another vendor's file.
    """

    path: Path
    pepper: bytes = field(repr=False)
    signer: SecretSigner
    engine: Engine
    _seen: tuple[int, int, int] | None = None
    _complaint: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the file once a second until `stop` is set; what is wrong with it is logged, and the old keys stay.

        Not to be cancelled: a look that is under way would go on in its thread, and use a closed database.
        """
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), WATCH_SECONDS)
                return
            try:
                await asyncio.to_thread(self.check)
                self._complaint = None
            except (VendorError, SQLAlchemyError, OSError) as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    _log.error("the secrets file was changed and could not be taken over: %s", error)

    def check(self) -> bool:
        """Take over what is new in the file; returns whether anything was. Blocks.

        Raises:
            SecretsError: The file is broken, or of another vendor.
            SQLAlchemyError: The new key cannot be published now.
            OSError: The file cannot be read.
        """
        status = self.path.stat()
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version == self._seen:
            return False
        secrets = load_secrets(self.path)
        if secrets.pepper != self.pepper:
            raise SecretsError(f"{self.path} is of another vendor; restore the one that this server started with")
        renewed = secrets.signer()
        is_new = renewed.published_keys != self.signer.published_keys
        if is_new:
            with writing(self.engine).begin() as connection:
                ensure_published(connection, renewed)
            self.signer.adopt(secrets.keys)
            _log.info("now signing with key %s", renewed.key_id)
        self._seen = version
        return is_new


_PUBLICATION_LOCK = 0x766C3276  # any number that nothing else in the database locks


class WrongSecrets(VendorError):
    """The secrets file belongs to another database, or is an old copy."""


def publish_keys(connection: Connection, signer: SecretSigner) -> None:
    """Insert keys that are new, each with a row in the log of the staff's acts, and mark those that they replace.

    Raises:
        WrongSecrets: The signer does not hold all the keys that were published. If it holds none of them, its pepper
            is another one too, and no paid item would be recognised.
    """
    if connection.dialect.name == "postgresql":  # two replicas that start on a new database must not both found it
        connection.execute(select(func.pg_advisory_xact_lock(_PUBLICATION_LOCK)))
    rows = {row.key_id: row for row in connection.execute(select(signing_keys))}
    retired = {key_id: row.retired_at for key_id, row in rows.items()}
    held = {key.key_id for key in signer.published_keys}
    if held < retired.keys():
        raise WrongSecrets(
            "the secrets file is a copy from before the signing key was rotated; copy vendor-secrets.json from the "
            "machine where it was rotated, or restore its newest backup"
        )
    if not held >= retired.keys():
        raise WrongSecrets(
            "the secrets file does not hold the keys that signed this ledger; "
            "restore the vendor-secrets.json that belongs to the database"
        )
    for key in signer.published_keys:
        if key.key_id in rows and rows[key.key_id].public_key != key.public_key:
            raise WrongSecrets(f"the database has another public key as {key.key_id}; restore a backup of it")
        if key.key_id not in retired:
            connection.execute(insert(signing_keys).values(asdict(key)))
            if key.predecessor_id is not None:
                act = Act("rotate_signing_key", {"predecessor_id": key.predecessor_id})
                in_progress = ActInProgress(connection, make_request_id(), key.created_at, signer)
                begin_signing(in_progress)
                log_act(in_progress, act, {"key_id": key.key_id})
        elif retired[key.key_id] != key.retired_at:
            connection.execute(
                update(signing_keys).where(signing_keys.c.key_id == key.key_id).values(retired_at=key.retired_at)
            )
    begin_signing(ActInProgress(connection, make_request_id(), SystemClock().now(), signer))


def ensure_published(connection: Connection, signer: SecretSigner) -> None:
    """Publish the signer's keys unless the one in use is published.

    That one may have been replaced: a server, or a copy of the secrets file, that has not yet seen the rotation goes
    on with it.

    Raises:
        WrongSecrets: The secrets file belongs to another database.
    """
    known = connection.execute(select(signing_keys.c.key_id).where(signing_keys.c.key_id == signer.key_id)).first()
    if known is None:
        publish_keys(connection, signer)
