"""Power cuts at any moment of a selling SQLite ledger: no receipt without its charge, once the power is back."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from support.ledger.ledger_shop import problems_of
from support.ledger.power_loss import Kind, Record, lose_power, read_log
from vl2v_vendor.ledger_sql.database import open_engine

TESTS = Path(__file__).parent.parent
DATABASE, RECEIPTS = "vendor.db", "receipts"
CUTS_PER_RUN = 10


@dataclass(frozen=True)
class Run:
    """One recorded life of a ledger."""

    base: dict[str, bytes]
    records: list[Record]

    @property
    def receipts(self) -> list[int]:
        """Where in the log the receipts are."""
        return [place for place, record in enumerate(self.records) if record.name == RECEIPTS]


@dataclass
class Damage:
    """What many power cuts did."""

    cuts: int = 0
    receipts: int = 0
    lost: int = 0
    broken: int = 0
    surviving_entries: int = 0
    checkpoints: int = 0


@pytest.fixture(scope="session")
def write_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shim that records writes."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if sys.platform != "linux" or compiler is None:
        pytest.skip("recording writes needs Linux and a C compiler (cc)")
    library = tmp_path_factory.mktemp("shim") / "write_log.so"
    subprocess.run(
        [compiler, "-O1", "-shared", "-fPIC", "-o", library, TESTS / "support/ledger/write_log.c", "-ldl"], check=True
    )
    return library


@pytest.fixture
def record(write_log: Path, migrated_sqlite: Path, tmp_path: Path) -> Callable[[str, int, int], Run]:
    """Let a ledger sell, and record what it writes."""

    def run(synchronous: str, orders: int, seed: int) -> Run:
        folder = (tmp_path / f"{synchronous} {seed}").resolve()
        folder.mkdir()
        shutil.copy(migrated_sqlite, folder / DATABASE)
        log = tmp_path / f"{synchronous} {seed}.log"
        environment = os.environ | {
            "LD_PRELOAD": str(write_log),
            "WRITE_LOG": str(log),
            "WRITE_LOG_FOLDER": str(folder),
            "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
        }
        seller = str(TESTS / "support/ledger/recorded_seller.py")
        words = (f"sqlite:///{folder / DATABASE}", str(folder / RECEIPTS), str(orders), synchronous, str(seed))
        subprocess.run([sys.executable, seller, *words], env=environment, check=True)
        records = [record for record in read_log(log) if not record.name.endswith("-shm")]  # made anew at every start
        return Run({DATABASE: migrated_sqlite.read_bytes()}, records)

    return run


@pytest.mark.timeout(3600)
def test_no_receipt_survives_its_charge(
    record: Callable[[str, int, int], Run], tmp_path: Path, scale: Callable[[int, int], int], prove: Callable[..., None]
) -> None:
    runs, orders = scale(1, 10), scale(320, 800)
    damage = Damage()
    for seed in range(runs):
        _cut_often(record("FULL", orders, seed), damage, random.Random(seed), tmp_path)
        sys.stderr.write(f"\n{damage}\n")
    assert damage.surviving_entries > 0
    assert damage.checkpoints > 0, "no cut came after a checkpoint; sell more"
    prove("power losses", damage.cuts, goal=f">= {runs * CUTS_PER_RUN}", met=damage.cuts >= runs * CUTS_PER_RUN)
    prove("receipts given before a power loss", damage.receipts, goal="> 0", met=damage.receipts > 0)
    prove("receipts without their charge after it", damage.lost, goal="0", met=damage.lost == 0)
    prove("ledgers that do not verify after it", damage.broken, goal="0", met=damage.broken == 0)


@pytest.mark.timeout(3600)
def test_the_proof_finds_the_receipts_that_a_lesser_durability_loses(
    record: Callable[[str, int, int], Run], tmp_path: Path, prove: Callable[..., None]
) -> None:
    damage = Damage()
    _cut_often(record("NORMAL", 160, 0), damage, random.Random(0), tmp_path)
    assert damage.broken == 0
    prove("receipts lost with synchronous=NORMAL instead of FULL", damage.lost, goal="> 0", met=damage.lost > 0)


def _cut_often(run: Run, damage: Damage, dice: random.Random, tmp_path: Path) -> None:
    """Cut the power several times: every other time at the worst moment, right after a receipt was given."""
    first = run.receipts[0]
    for number in range(CUTS_PER_RUN):
        place = dice.choice(run.receipts) if number % 2 else dice.randrange(first, len(run.records))
        _cut(run, run.records[: place + 1], damage, dice, tmp_path / "after")
        shutil.rmtree(tmp_path / "after")


def _cut(run: Run, records: list[Record], damage: Damage, dice: random.Random, folder: Path) -> None:
    """Rebuild the files in `folder`, start again, and look for the charges of the receipts."""
    files = lose_power(run.base, [record for record in records if record.name != RECEIPTS], dice)
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    entries = _read_entries(folder / DATABASE)
    damage.broken += entries is None
    given = [
        record.data.decode().split() for record in records if record.name == RECEIPTS and record.kind is Kind.WRITE
    ]
    damage.cuts += 1
    damage.receipts += len(given)
    damage.lost += sum((int(seq), entry_hash) not in (entries or ()) for seq, entry_hash, _ in given)
    damage.surviving_entries += len(entries or ())
    damage.checkpoints += sum(record.kind is Kind.SYNC and record.name == DATABASE for record in records)


def _read_entries(database: Path) -> set[tuple[int, str]] | None:
    """The entries' numbers and hashes; None if the file or the ledger in it is broken."""
    engine = open_engine(f"sqlite:///{database}")
    try:
        with engine.connect() as connection:
            if connection.execute(text("PRAGMA integrity_check")).scalars().all() != ["ok"]:
                return None
            rows = connection.execute(text("SELECT seq, entry_hash FROM ledger")).all()
        return None if problems_of(engine) else {(seq, entry_hash) for seq, entry_hash in rows}
    except DatabaseError:
        return None
    finally:
        engine.dispose()
