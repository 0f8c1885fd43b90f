"""Rotating the signing key: from the command to a client that goes on buying and audits clean."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from support.client.buying_bench import buy, meet_vendor
from support.forked import FORKSERVER
from support.ledger.ledger_shop import fixed_signer
from support.proofs.billing_world import World, database_maker
from support.vendor.rotating_child import POINTS, rotate_and_die
from support.vendor.vendor_in_process import AppTransport, running
from support.vendor.vendor_shell import Result, invoke
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.bill import audit_bill
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import VendorChanged
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import make_plan
from vl2v_contract.records import SigningKey, successor_message
from vl2v_vendor.keys import secrets
from vl2v_vendor.keys.secrets import (
    SecretsError,
    SecretSigner,
    SigningKeyMissing,
    StoredKey,
    load_or_create_secrets,
    load_secrets,
    rotate_signing_key,
)
from vl2v_vendor.ledger_sql import key_publication
from vl2v_vendor.ledger_sql.database import writing
from vl2v_vendor.ledger_sql.key_publication import WrongSecrets, rotate_and_publish
from vl2v_vendor.ledger_sql.reading import read_published_keys
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.tables import admin_log, budgets
from vl2v_vendor.settings import Settings


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    opened = World(database_maker(request.param, request, tmp_path), tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Settings:
    """Of a server without a model, and of the commands beside it."""
    for name in [name for name in os.environ if name.startswith("VL2V_VENDOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VL2V_VENDOR_DATA_DIR", str(tmp_path / "vendor"))
    return Settings(encoder="hash")


def command(*words: str) -> Result:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result


def listed() -> list[dict[str, object]]:
    keys: list[dict[str, object]] = json.loads(command("signing-key", "list", "--json").stdout)
    return keys


def rotations(engine: Engine) -> list[str]:
    """The ids of the keys that the log of the staff's acts says were made."""
    with engine.connect() as connection:
        rows = connection.execute(select(admin_log.c.outcome).where(admin_log.c.act == "rotate_signing_key"))
        return [json.loads(outcome)["key_id"] for (outcome,) in rows]


def published_ids(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return [key.key_id for key in read_published_keys(connection)]


def purchase(client: VendorClient, cache: EmbeddingCache, *texts: str) -> list[str]:
    """Buy texts; returns the ids of the keys that signed the receipts."""
    teacher = meet_vendor(client, cache)
    report = buy(make_plan([], [TextQuery(text) for text in texts], teacher, cache), client, cache)
    return [receipt.key_id for receipt in report.receipts]


def connect(transport: AppTransport, secret: str) -> VendorClient:
    return VendorClient("http://vendor", secret, transport=transport, sleep=lambda _: None, rng=random.Random(0))


def test_a_client_buys_before_and_after_a_rotation_and_audits_clean(settings: Settings, tmp_path: Path) -> None:
    secret = json.loads(command("keys", "create", "--account", "a", "--budget", "9", "--json").stdout)["secret"]
    with (
        running(settings) as transport,
        EmbeddingCache(tmp_path / "client.db") as cache,
        connect(transport, secret) as client,
    ):
        [old_id] = purchase(client, cache, "one", "two")
        command("signing-key", "rotate")
        [old, new] = listed()
        assert (old["key_id"], new["predecessor_id"], new["retired_at"]) == (old_id, old_id, None)
        assert old["retired_at"] == new["created_at"]
        wait_until_in_use(client, str(new["key_id"]))
        assert purchase(client, cache, "three") == [new["key_id"]]
        # What the old key signed is signed by it again, to the same bytes.
        again = client.replay([row.item_key for row in cache.records.paid_rows()])
        kept = [row.receipt for row in cache.records.paid_rows() if row.receipt is not None]
        assert {receipt.to_json() for receipt in again.receipts} == {receipt.to_json() for receipt in kept}
        assert {receipt.key_id for receipt in kept} == {old_id, new["key_id"]}
        report = audit_bill(client, cache)
        assert (report.is_clean, report.matched_items, report.entries) == (True, 3, 3)


def wait_until_in_use(client: VendorClient, key_id: str) -> None:
    """The statement's head is signed with the key in use."""
    deadline = time.monotonic() + 20
    while next(client.statement_pages()).signed_head.head.key_id != key_id:
        assert time.monotonic() < deadline, "the server did not take the new key over"
        time.sleep(0.05)


def test_a_key_that_its_predecessor_never_signed_is_refused_by_the_client(settings: Settings, tmp_path: Path) -> None:
    secret = json.loads(command("keys", "create", "--account", "a", "--budget", "9", "--json").stdout)["secret"]
    with EmbeddingCache(tmp_path / "client.db") as cache:
        with running(settings) as transport, connect(transport, secret) as client:
            purchase(client, cache, "one")
        own = load_secrets(settings.secrets_path)
        stranger, thief = SigningKey.generate(), SigningKey.generate()
        stolen = StoredKey(stranger, own.keys[0].created_at + 1, thief.sign(successor_message(stranger.public_key)))
        os.replace(
            secrets._write_temporary(settings.secrets_path, replace(own, keys=(*own.keys, stolen))),
            settings.secrets_path,
        )
        with running(settings) as transport, connect(transport, secret) as client:
            with pytest.raises(VendorChanged, match="without its predecessor's signature"):
                purchase(client, cache, "two")
            with pytest.raises(VendorChanged, match="without its predecessor's signature"):
                audit_bill(client, cache)


def test_every_rotation_is_published_in_order_and_logged_once(world: World) -> None:
    made = [rotate_and_publish(world.engine, world.secrets_path).key_id for _ in range(3)]
    world.restart()
    assert published_ids(world.engine) == [key.key_id for key in world.signer.published_keys]
    assert published_ids(world.engine)[1:] == made == rotations(world.engine)


def test_a_key_is_never_older_than_what_its_predecessor_signed(world: World) -> None:
    """A ledger whose clock once ran ahead: its entries must not look as if a retired key had signed them."""
    account = world.accounts.create_account("acme", budget_units=1)
    ahead = 1_000 * 86_400_000_000 + time.time_ns() // 1000
    with writing(world.engine).begin() as connection:
        connection.execute(update(budgets).where(budgets.c.account_id == account.id).values(last_created_at=ahead))
    world.accounts.top_up(account, 1)
    key = rotate_and_publish(world.engine, world.secrets_path)
    assert key.created_at >= ahead


def test_a_rotation_that_was_not_published_is_published_at_the_next_start(world: World) -> None:
    new_id = rotate_signing_key(world.secrets_path).signer().key_id
    assert new_id not in published_ids(world.engine)
    world.restart()
    assert published_ids(world.engine)[-1] == world.signer.key_id == new_id
    assert rotations(world.engine) == [new_id]


def test_the_next_act_of_the_staff_publishes_too(world: World) -> None:
    signer = rotate_signing_key(world.secrets_path).signer()
    world.accounts.create_account("acme", budget_units=1)
    assert published_ids(world.engine)[-1] == signer.key_id


def test_a_server_goes_on_with_its_key_until_it_sees_the_new_file(world: World) -> None:
    """Also what a replica does whose copy of the file is still the old one."""
    old_id = world.signer.key_id
    account = world.accounts.create_account("acme", budget_units=1)
    key = rotate_and_publish(world.engine, world.secrets_path)
    staff = SqlAccounts(world.engine, signer=world.signer, clock=world.clock)
    assert staff.top_up(account, 5).budget.limit_units == 6
    last = world.run(world.ledgers[0].entries(account.id, after_seq=1, limit=9))[-1]
    assert (last.entry.signing_key_id, world.signer.key_id) == (old_id, old_id)
    signed = replace(last.entry, signing_key_id=key.key_id)
    with pytest.raises(SigningKeyMissing, match="copy the file from where the key was rotated"):
        world.signer.sign_receipt(signed, signed.hash())
    before = world.signer.sign_receipt(last.entry, last.entry_hash)
    assert world.watch.check()
    assert not world.watch.check()
    assert world.signer.key_id == key.key_id
    assert world.signer.sign_receipt(last.entry, last.entry_hash) == before


def test_a_key_is_used_only_once_it_is_published(world: World) -> None:
    new_id = rotate_signing_key(world.secrets_path).signer().key_id
    assert world.watch.check()
    assert published_ids(world.engine)[-1] == world.signer.key_id == new_id


def test_an_old_copy_of_the_file_can_neither_be_rotated_nor_started_with(world: World) -> None:
    old = world.secrets_path.read_bytes()
    rotate_and_publish(world.engine, world.secrets_path)
    world.secrets_path.write_bytes(old)
    with pytest.raises(WrongSecrets, match="copy from before the signing key was rotated"):
        rotate_and_publish(world.engine, world.secrets_path)
    assert world.secrets_path.read_bytes() == old
    with pytest.raises(WrongSecrets, match="copy from before"):
        world.restart()


def test_a_running_server_keeps_its_keys_when_the_file_goes_bad(world: World, tmp_path: Path) -> None:
    key_id = world.signer.key_id
    own = load_secrets(world.secrets_path)
    other = load_or_create_secrets(tmp_path / "other.json")
    for bad, why in (
        (replace(own, pepper=b"x" * 32), "of another vendor"),
        (replace(own, keys=other.keys), "do not hold|does not hold|do not continue"),
    ):
        os.replace(secrets._write_temporary(world.secrets_path, bad), world.secrets_path)
        with pytest.raises((SecretsError, WrongSecrets), match=why):
            world.watch.check()
        assert world.signer.key_id == key_id
    os.replace(secrets._write_temporary(world.secrets_path, own), world.secrets_path)
    assert not world.watch.check()


def test_the_watch_ends_when_the_look_that_is_under_way_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would hold a connection of a database that is closed."""
    looking, ended = threading.Event(), threading.Event()

    def look_slowly() -> bool:
        looking.set()
        time.sleep(0.2)
        ended.set()
        return False

    monkeypatch.setattr(key_publication, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(world.watch, "check", look_slowly)

    async def story() -> None:
        stop = asyncio.Event()
        running_watch = asyncio.create_task(world.watch.run(stop))
        await asyncio.to_thread(looking.wait)
        stop.set()
        await running_watch
        assert ended.is_set()

    world.run(story())


def test_a_message_is_signed_with_the_key_that_it_names() -> None:
    """The signer may take a new key over between the two."""
    old = fixed_signer()
    new = StoredKey(SigningKey.generate(), 2, None)
    head: dict[str, int | str] = {"seq": 1, "account_id": "a", "entry_hash": "e" * 64, "key_id": old.key_id}
    before = old.sign_head(head), old.sign_recompute(head)
    old.adopt((StoredKey(SigningKey.from_seed(b"\x01" * 32), 1, None), new))
    assert old.key_id == new.key.key_id
    assert (old.sign_head(head), old.sign_recompute(head)) == before
    with pytest.raises(SecretsError, match="do not continue"):
        old.adopt((new,))


def test_keys_are_ordered_though_the_clock_went_back() -> None:
    own = secrets.VendorSecrets(b"p", (StoredKey(SigningKey.generate(), 10**18, None),))
    times = [key.created_at for key in own.with_new_key(now=5).with_new_key(now=5).keys]
    assert times == sorted(set(times))


@pytest.mark.parametrize("at", POINTS)
def test_a_rotation_that_is_killed_happens_or_not_and_loses_nothing(world: World, at: str) -> None:
    account = world.accounts.create_account("acme", budget_units=1)
    child = FORKSERVER.Process(target=rotate_and_die, args=(world.url, world.secrets_path, at))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    happened = at != POINTS[0]
    assert published_ids(world.engine) == [world.signer.key_id]
    world.restart()
    world.accounts.top_up(account, 1)
    assert len(published_ids(world.engine)) == len(rotations(world.engine)) + 1 == 1 + happened
    assert isinstance(world.signer, SecretSigner)
    rotate_and_publish(world.engine, world.secrets_path)
    assert [file.name for file in world.secrets_path.parent.iterdir()] == [world.secrets_path.name]
