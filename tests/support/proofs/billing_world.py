"""What the state machines of the bill live in: fresh databases, a clock that moves, and ledgers that restart."""

from __future__ import annotations

import random
import shutil
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine, make_url, text

from support.ledger.databases import copy_database
from support.ledger.ledger_shop import MODEL
from support.vendor.serving_shop import app_client
from support.vendor.vendor_in_process import LoopThread, serving
from vl2v_vendor.keys.secrets import load_or_create_secrets
from vl2v_vendor.ledger_sql.database import is_postgresql, open_engine, writing
from vl2v_vendor.ledger_sql.key_publication import SigningKeyWatch
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.settings import Settings

T = TypeVar("T")
NewDatabase = Callable[[], AbstractContextManager[str]]

HOUR_MICRO = 3_600_000_000
RETENTION_HOURS = 48

_numbers = count(1)

# A function of this name in an earlier schema stands before the server's own.
_MOVABLE_CLOCK = (
    "CREATE SCHEMA skewed",
    "CREATE TABLE skewed.skew (hours integer NOT NULL)",
    "INSERT INTO skewed.skew VALUES (0)",
    "CREATE FUNCTION skewed.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
    "'SELECT pg_catalog.clock_timestamp() + make_interval(hours => (SELECT hours FROM skewed.skew))'",
)


def database_maker(kind: str, request: pytest.FixtureRequest, folder: Path) -> NewDatabase:
    """Makes a fresh, migrated database for each example; `kind` is sqlite or postgres."""
    if kind == "sqlite":
        template: Path = request.getfixturevalue("migrated_sqlite")
        return lambda: _sqlite_copy(template, folder)
    server: str = request.getfixturevalue("postgres_server")
    migrated: str = request.getfixturevalue("migrated_postgres")
    return lambda: _postgres_copy(server, migrated)


@contextmanager
def _sqlite_copy(template: Path, folder: Path) -> Iterator[str]:
    home = folder / f"example{next(_numbers)}"
    home.mkdir()
    shutil.copy(template, home / "vendor.db")
    yield f"sqlite:///{home / 'vendor.db'}"
    shutil.rmtree(home)


@contextmanager
def _postgres_copy(server: str, template: str) -> Iterator[str]:
    name = f"vl2v_machine_{next(_numbers)}"
    _execute(server, copy_database(name, template))
    url = make_url(server).set(database=name).render_as_string(hide_password=False)
    _execute(url, *_MOVABLE_CLOCK, f"ALTER DATABASE {name} SET search_path = public, skewed, pg_catalog")
    yield url
    _execute(server, f"DROP DATABASE {name} WITH (FORCE)")


def _execute(url: str, *statements: str) -> None:
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


class MovableClock:
    """The time, moved by whole hours; on PostgreSQL the database's own clock moves with it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.hours = 0

    def now(self) -> int:
        return time.time_ns() // 1000 + self.hours * HOUR_MICRO

    async def check(self) -> None:
        """Its steps are meant."""

    def move(self, hours: int) -> None:
        self.hours += hours
        if is_postgresql(self._engine):
            with writing(self._engine).begin() as connection:
                connection.execute(text("UPDATE skewed.skew SET hours = :hours"), {"hours": self.hours})


class Place:
    """A database, a secrets file, a clock, and a loop; `open` starts what serves there, `stop` ends it."""

    def __init__(self, new_database: NewDatabase, folder: Path) -> None:
        self._database = new_database()
        self.url = self._database.__enter__()
        self.folder = folder / f"place{next(_numbers)}"
        self.secrets_path = self.folder / "vendor-secrets.json"
        self.engine = open_engine(self.url)
        self.clock = MovableClock(self.engine)
        self.loop = LoopThread()
        self.open()

    @property
    def accounts(self) -> SqlAccounts:
        """The staff, who read the secrets file anew for each act, as a command does."""
        signer = load_or_create_secrets(self.secrets_path).signer()
        return SqlAccounts(self.engine, signer=signer, clock=self.clock)

    def open(self) -> None:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def restart(self) -> None:
        self.stop()
        self.engine.dispose()
        self.open()

    def close(self) -> None:
        self.stop()
        self.engine.dispose()
        self.loop.close()
        self._database.__exit__(None, None, None)

    def run(self, story: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(story)


class World(Place):
    """One server's ledger, or on PostgreSQL two replicas'."""

    def open(self) -> None:
        secrets = load_or_create_secrets(self.secrets_path)
        self.signer = secrets.signer()
        self.watch = SigningKeyWatch(self.secrets_path, secrets.pepper, self.signer, self.engine)
        self._engines = [open_engine(self.url) for _ in range(2 if is_postgresql(self.engine) else 1)]
        self.ledgers = [
            SqlLedger(engine, signer=self.signer, clock=self.clock, retention_seconds=RETENTION_HOURS * 3600)
            for engine in self._engines
        ]
        for ledger in self.ledgers:
            self.run(ledger.start())

    def stop(self) -> None:
        for ledger in self.ledgers:
            self.run(ledger.close())
        for engine in self._engines:
            engine.dispose()

    def set_price(self, unit_price_micro: int) -> int:
        """A new price for images; returns its id."""
        return self.accounts.set_price(MODEL, "image", unit_price_micro, "EUR").id


class Shopfront(Place):
    """One server's app, or on PostgreSQL two replicas', as `bootstrap` opens them with the hash encoder."""

    max_items = 1024

    def open(self) -> None:
        # The clock is the one thing that `bootstrap` cannot be told; the server's own runs in real time.
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr("vl2v_vendor.bootstrap.GuardedClock", lambda _bound: self.clock)
        settings = Settings(
            database_url=SecretStr(self.url),
            data_dir=self.folder,
            encoder="hash",
            max_items=self.max_items,
            retention_days=RETENTION_HOURS // 24,
        )
        self._stack = ExitStack()
        self.apps = [
            self._stack.enter_context(serving(settings, self.loop))
            for _ in range(2 if is_postgresql(self.engine) else 1)
        ]

    def stop(self) -> None:
        self._stack.close()
        self._patch.undo()

    def client(self, replica: int, secret: str) -> httpx.AsyncClient:
        """Of one server; for use on the loop."""
        return app_client(self.apps[replica % len(self.apps)], secret)


def pick(among: Sequence[T], which: int) -> T:
    """One of them, by a number of any size."""
    return among[which % len(among)]


def prove_machine(
    machine: type[RuleBasedStateMachine],
    name: str,
    request: pytest.FixtureRequest,
    *,
    examples: tuple[int, int],
    steps: tuple[int, int],
) -> None:
    """Run a state machine on fresh databases of the test's `kind`, and record how many sequences of acts were clean.

    Args:
        machine: Class whose instances take `new_database` and `folder`.
        name: Name in the figures.
        request: Request of a test that is parametrized by `kind`.
        examples: Number of examples, in short and at full length.
        steps: Number of acts of each example, in short and at full length.
    """
    kind: str = request.getfixturevalue("kind")
    folder: Path = request.getfixturevalue("tmp_path")
    scale: Callable[[int, int], int] = request.getfixturevalue("scale")
    placed = type(machine.__name__, (machine,), {
        "new_database": staticmethod(database_maker(kind, request, folder)), "folder": folder,
    })  # fmt: skip
    wanted, length, told = scale(*examples), scale(*steps), f"{name} on {kind}"
    ran = _run_machine(placed, told, full=request.getfixturevalue("full"), examples=wanted, steps=length)
    prove = request.getfixturevalue("prove")
    prove(f"{told}: sequences of {length} acts, all clean", ran, goal=f">= {wanted}", met=ran >= wanted)


def _run_machine(machine: type[RuleBasedStateMachine], name: str, *, full: bool, examples: int, steps: int) -> int:
    """Run a state machine: always the same examples, or in full new ones of a seed that is told; returns how many."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=not full,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    ran = 0

    def begin() -> RuleBasedStateMachine:
        nonlocal ran
        ran += 1
        if full and ran % 25 == 0:
            sys.stderr.write(f"{name}: {ran} examples\n")
        return machine()

    test = get_state_machine_test(begin, settings=chosen)  # type: ignore[arg-type]
    if full:
        number = random.SystemRandom().randrange(2**32)
        sys.stderr.write(f"\n{name}: {examples} examples of {steps} steps, seed {number}\n")
        test = seed(number)(test)
    test()
    return ran
