"""What this server has signed, kept outside the database: so that an old backup cannot give a number out twice.

A JSON file beside the secrets holds, for each ledger and account, the last entry whose receipt or statement head was
signed here. It is written at most once a second and may lag by as much: `vl2v_contract.chain.RESTORE_MARGIN` makes up
for that. `ledger_sql.restoration` compares it with the ledger before anything is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from vl2v_contract.chain import LedgerEntry
from vl2v_contract.records import PublicKey
from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.domain.ports import Signer
from vl2v_vendor.host import write_durably

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


class HeadsFile:
    """One ledger's part of the file. Servers of several ledgers, and replicas on one machine, share it."""

    def __init__(self, path: Path, ledger_id: str) -> None:
        self.path = path
        self._ledger_id = ledger_id

    def read(self) -> Heads:
        """Return the heads; none if there is no file yet.

        Raises:
            HeadsFileError: It is not such a file, or cannot be read.
        """
        return self._read_all().get(self._ledger_id, {})

    def merge(self, heads: Mapping[str, PublishedHead]) -> None:
        """Put in what lies beyond what the file says.

        Raises:
            HeadsFileError: The file cannot be read or written.
        """

        def put_in(known: Heads) -> None:
            for account_id, head in heads.items():
                if account_id not in known or head.seq > known[account_id].seq:
                    known[account_id] = head

        self._change(put_in)

    def forget(self, account_ids: Iterable[str]) -> None:
        """Take accounts out that the ledger no longer has; raises HeadsFileError as `merge` does."""

        def take_out(known: Heads) -> None:
            for account_id in account_ids:
                known.pop(account_id, None)

        self._change(take_out)

    def _change(self, change: Callable[[Heads], None]) -> None:
        try:
            with self._locked():
                ledgers = self._read_all()
                change(ledgers.setdefault(self._ledger_id, {}))
                self._write_all(ledgers)
        except OSError as error:
            raise HeadsFileError(
                f"the published heads cannot be written to {self.path} ({error.strerror}); make its folder writable"
            ) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(
            self.path.with_name(f"{self.path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

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

    def _write_all(self, ledgers: Mapping[str, Heads]) -> None:
        document = {
            "version": 1,
            "ledgers": {
                ledger_id: {account_id: [head.seq, head.entry_hash] for account_id, head in heads.items()}
                for ledger_id, heads in ledgers.items()
            },
        }
        write_durably(self.path, json.dumps(document))


class HeadsRecorder:
    """Notes in memory what is signed, and writes it down in the background.

    Args:
        file: File of the heads; must be writable when the server starts; later failures are logged and tried again.
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
            with contextlib.suppress(asyncio.CancelledError):
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


class RecordingSigner:
    """A signer that has every receipt and head that it signs noted."""

    def __init__(self, signer: Signer, recorder: HeadsRecorder) -> None:
        self._signer = signer
        self._recorder = recorder

    @property
    def key_id(self) -> str:
        """The key in use now."""
        return self._signer.key_id

    @property
    def published_keys(self) -> Sequence[PublicKey]:
        """The public halves, oldest first."""
        return self._signer.published_keys

    def sign_receipt(self, entry: LedgerEntry, entry_hash: str) -> str:
        """Sign an entry by the key that it names; returns the signature in base64."""
        signature = self._signer.sign_receipt(entry, entry_hash)
        self._recorder.note(entry.account_id, entry.seq, entry_hash)
        return signature

    def sign_head(self, head: dict[str, int | str]) -> str:
        """Sign a canonical head by the key that it names as its `key_id`; returns the signature in base64."""
        signature = self._signer.sign_head(head)
        self._recorder.note(str(head["account_id"]), int(head["seq"]), str(head["entry_hash"]))
        return signature

    def sign_recompute(self, note: dict[str, int | str]) -> str:
        """Sign a canonical note by the key that it names as its `key_id`; returns the signature in base64."""
        return self._signer.sign_recompute(note)
