"""A rotation of the signing key in a process of its own, which kills itself with SIGKILL at a named point."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from sqlalchemy import Connection

from vl2v_vendor.keys import secrets
from vl2v_vendor.ledger_sql import key_publication
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.key_publication import publish_keys

POINTS = ("before the file is replaced", "after the file is replaced", "before the commit")


def rotate_and_die(url: str, path: Path, at: str) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    real_publish = publish_keys

    def publish_and_die(connection: Connection, signer: secrets.SecretSigner) -> None:
        real_publish(connection, signer)
        if len(signer.published_keys) > 1:
            die()

    if at == POINTS[0]:
        os.replace = die  # type: ignore[assignment]
    elif at == POINTS[1]:
        secrets.sync_folder = die  # type: ignore[assignment]
    else:
        key_publication.publish_keys = publish_and_die  # type: ignore[attr-defined]
    key_publication.rotate_and_publish(open_engine(url), path)
