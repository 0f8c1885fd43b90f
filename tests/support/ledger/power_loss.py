"""The disk after a power loss: a write log replayed up to a cut, with whatever may have reached the disk since the last
sync.

The log is made by `write_log.c`. What was written before a file's last sync is there. Of what was written later any
part may be there, in any order, torn between sectors. A file that was made or removed since the folder's last sync may
be there or not.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

SECTOR_SIZES = (512, 4096)

_HEADER = struct.Struct("=IIQQ")


class Kind(IntEnum):
    WRITE = 1
    SYNC = 2
    TRUNCATE = 3
    UNLINK = 4


@dataclass(frozen=True, slots=True)
class Record:
    """One step. `offset` is a write's, or the new size of a truncated file; the folder's own name is empty."""

    kind: Kind
    name: str
    offset: int
    data: bytes


@dataclass
class _File:
    """What is on the disk for sure, and what was written since."""

    synced: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def sync(self) -> None:
        for record in self.pending:
            _apply(self.synced, record)
        self.pending = []

    def settle(self, dice: random.Random) -> bytes:
        """One of the contents that a power loss may leave."""
        sector = dice.choice(SECTOR_SIZES)
        share = dice.choice((0.0, 0.1, 0.5, 0.9, 1.0))
        pieces: list[Record] = []
        for record in self.pending:
            if record.kind is Kind.WRITE:
                pieces += _tear(record, sector)
                continue
            self._land(pieces, share, dice)
            pieces = []
            if dice.random() < share:
                _apply(self.synced, record)
        self._land(pieces, share, dice)
        return bytes(self.synced)

    def _land(self, pieces: list[Record], share: float, dice: random.Random) -> None:
        dice.shuffle(pieces)
        for piece in pieces:
            if dice.random() < share:
                _apply(self.synced, piece)


def read_log(path: Path) -> list[Record]:
    """The records of a log, in order."""
    log = path.read_bytes()
    records, position = [], 0
    while position < len(log):
        kind, name_length, offset, length = _HEADER.unpack_from(log, position)
        start = position + _HEADER.size
        data = start + name_length
        position = data + length
        records.append(Record(Kind(kind), log[start:data].decode(), offset, log[data:position]))
    return records


def lose_power(base: dict[str, bytes], records: Sequence[Record], dice: random.Random) -> dict[str, bytes]:
    """Files by name, as they may be found after a power loss right behind the last record.

    Args:
        base: the files before the first record, all on the disk.
    """
    files = {name: _File(bytearray(data)) for name, data in base.items()}
    named_for_sure, named = set(files), set(files)
    for record in records:
        if record.name == "":
            named_for_sure = set(named)
        elif record.kind is Kind.SYNC:
            files[record.name].sync()
        elif record.kind is Kind.UNLINK:
            named.discard(record.name)
        else:
            named.add(record.name)
            files.setdefault(record.name, _File()).pending.append(record)
    left = (named & named_for_sure) | {name for name in named ^ named_for_sure if dice.random() < 0.5}
    return {name: files[name].settle(dice) for name in sorted(left)}


def _apply(content: bytearray, record: Record) -> None:
    end = record.offset + len(record.data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if record.kind is Kind.TRUNCATE:
        del content[record.offset :]
    content[record.offset : end] = record.data


def _tear(record: Record, sector: int) -> list[Record]:
    """The write in pieces that end where sectors do."""
    pieces, start = [], 0
    while start < len(record.data):
        end = min(len(record.data), start + sector - (record.offset + start) % sector)
        pieces.append(Record(Kind.WRITE, record.name, record.offset + start, record.data[start:end]))
        start = end
    return pieces
