"""What this server has signed, kept outside the database: so that an old backup cannot give a number out twice.

A JSON file holds, for each ledger and account, the last entry whose receipt or statement head was signed here. It lies
beside the secrets, unless the setting `published_heads_file` names another place. It is written at most once a second
and may lag by as much: `vl2v_contract.chain.RESTORE_MARGIN` makes up for that. `ledger_sql.restoration` compares it
with the ledger before anything is served.
"""

import asyncio
import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.host import durable_file

FLUSH_SECONDS = 1.0

_log = logging.getLogger(__name__)


class HeadsFileError(VendorError):
    """The file of the published heads cannot be used."""


@dataclass(frozen=True, slots=True)
class PublishedHead:
    """The last entry of an account that was signed."""

    seq: int
    entry_hash: str


Heads = dict[str, PublishedHead]
"""By account id."""


@dataclass(frozen=True, slots=True)
class HeadsFile:
    """One ledger's part of the file. Servers of several ledgers, and replicas on one machine, share it."""

    path: Path
    ledger_id: str

    def read(self) -> Heads:
        """Return the heads; none if there is no file yet.

        Raises:
            HeadsFileError: It is not such a file, or cannot be read.
        """
        return self._read_all().get(self.ledger_id, {})

    def others(self) -> list[str]:
        """Return the other ledgers that the file has heads of, if it does not know this one; raises as `read`."""
        ledgers = self._read_all()
        return [] if self.ledger_id in ledgers else sorted(name for name, heads in ledgers.items() if heads)

    def merge(self, heads: Mapping[str, PublishedHead]) -> None:
        """Put in what lies beyond what the file says.

        Raises:
            HeadsFileError: The file cannot be read or written.
        """
        with self._changing() as known:
            known |= {
                account_id: head
                for account_id, head in heads.items()
                if account_id not in known or head.seq > known[account_id].seq
            }

    def forget(self, account_ids: Iterable[str]) -> None:
        """Take accounts out that the ledger no longer has; raises HeadsFileError as `merge` does."""
        with self._changing() as known:
            for account_id in account_ids:
                known.pop(account_id, None)

    @contextmanager
    def _changing(self) -> Iterator[Heads]:
        """Open the heads for a change, which is written at the end; others wait meanwhile."""
        lock = self.path.with_name(f"{self.path.name}.lock")
        try:
            with os.fdopen(os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "rb") as held:
                fcntl.flock(held, fcntl.LOCK_EX)
                ledgers = self._read_all()
                yield ledgers.setdefault(self.ledger_id, {})
                document = {
                    ledger_id: {account_id: [head.seq, head.entry_hash] for account_id, head in heads.items()}
                    for ledger_id, heads in ledgers.items()
                }
                with durable_file(self.path, mode=0o600) as file:
                    json.dump({"version": 1, "ledgers": document}, file)
        except OSError as error:
            raise HeadsFileError(
                f"the published heads cannot be written to {self.path} ({error.strerror}); make its folder writable, "
                "or name another file as published_heads_file"
            ) from error

    def _read_all(self) -> dict[str, Heads]:
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            return {
                ledger_id: {
                    account_id: PublishedHead(int(seq), str(entry_hash))
                    for account_id, (seq, entry_hash) in heads.items()
                }
                for ledger_id, heads in document["ledgers"].items()
            }
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise HeadsFileError(
                f"{self.path} cannot be read as published heads; restore it from a backup, or move it away if you are "
                "sure that no older state of the database was restored"
            ) from error


class HeadsRecorder:
    """Notes in memory what is signed, if its `note` is the signer's `on_signed`, and writes it down in the background.

    The file must be writable when the server starts; later failures are logged and tried again.
    """

    def __init__(self, file: HeadsFile) -> None:
        self._file = file
        self._lock = Lock()
        self._noted: Heads = {}
        self._unwritten: set[str] = set()
        self._writer: asyncio.Task[None] | None = None

    def note(self, account_id: str, seq: int, entry_hash: str) -> None:
        """Remember that this entry was signed. Cheap, and safe from any thread."""
        with self._lock:
            known = self._noted.get(account_id)
            if seq > (known.seq if known is not None else 0):
                self._noted[account_id] = PublishedHead(seq, entry_hash)
                self._unwritten.add(account_id)

    async def start(self) -> None:
        """Begin to write; raises HeadsFileError if the file cannot be written."""
        await asyncio.to_thread(self._file.merge, {})
        self._writer = asyncio.create_task(self._keep_writing(), name="published-heads")

    async def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.cancel()
            with suppress(asyncio.CancelledError):
                await self._writer
        await asyncio.to_thread(self._flush)

    async def _keep_writing(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await asyncio.to_thread(self._flush)

    def _flush(self) -> None:
        with self._lock:
            account_ids, self._unwritten = self._unwritten, set()
            heads = {account_id: self._noted[account_id] for account_id in account_ids}
        if not heads:
            return
        try:
            self._file.merge(heads)
        except HeadsFileError:
            _log.exception("the published heads were not written; trying again")
            with self._lock:
                self._unwritten |= account_ids
