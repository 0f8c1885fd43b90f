"""The staff's commands: keys, accounts, prices, ledger."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from support.ledger.ledger_shop import FakeClock, Shop
from support.ledger.tampered_books import forget_signatures
from support.vendor.vendor_shell import Result, invoke
from vl2v_vendor.bootstrap import _ensure_prices
from vl2v_vendor.domain.accounts import secret_sha256
from vl2v_vendor.domain.errors import InvalidRequest, LedgerUnavailable, NotFound
from vl2v_vendor.keys.secrets import load_secrets
from vl2v_vendor.ledger_sql.database import open_engine, writing
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger
from vl2v_vendor.settings import Settings

pytestmark = pytest.mark.anyio

Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs `vl2v-vendor` on a machine where nothing was ever run; refusals come out as they are raised."""
    for name in [name for name in os.environ if name.startswith("VL2V_VENDOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return invoke


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_one_command_on_a_fresh_machine_makes_database_secrets_account_and_key(
    command: Command, tmp_path: Path
) -> None:
    result = command("keys", "create", "--account", "acme", "--budget", "10000")
    assert result.exit_code == 0
    secret = result.stdout.strip()
    assert (secret[:5], len(secret)) == ("vl2v_", 48)
    assert "10000 of 10000" in result.stderr
    folder = tmp_path / "vl2v"
    assert stat.S_IMODE((folder / "vendor-secrets.json").stat().st_mode) == 0o600
    assert secret.encode() not in (folder / "vendor.db").read_bytes()
    [key] = parsed(command("keys", "list", "--json"))
    assert (key["prefix"], key["scopes"], key["account_name"]) == (secret[:13], ["billing", "embed"], "acme")


def test_a_budget_for_an_account_that_exists_is_refused_with_the_remedy(command: Command) -> None:
    command("accounts", "create", "acme", "--budget", "5")
    with pytest.raises(InvalidRequest, match="accounts topup acme"):
        command("keys", "create", "--account", "acme", "--budget", "5")
    issued = parsed(command("keys", "create", "--account", "acme", "--key-budget", "2", "--scopes", "embed", "--json"))
    assert issued["key"]["scopes"] == ["embed"]
    assert issued["account"]["budget"] == {"limit_units": 5, "used_units": 0}


def test_top_up_twice_under_one_request_id_counts_once(command: Command) -> None:
    command("accounts", "create", "acme", "--budget", "5")
    for _ in range(2):
        account = parsed(command("accounts", "topup", "acme", "7", "--request-id", "invoice-7", "--json"))
        assert account["budget"]["limit_units"] == 12
    assert "12" in command("accounts", "list").stdout
    with pytest.raises(NotFound, match="accounts create nobody"):
        command("accounts", "topup", "nobody", "7")


def test_a_key_is_revoked_by_its_prefix(command: Command) -> None:
    secret = command("keys", "create", "--account", "acme", "--budget", "5", "--expires", "0.5").stdout.strip()
    assert "valid" in command("keys", "list", "--account", "acme").stdout
    command("keys", "revoke", secret[:13])
    assert "revoked" in command("keys", "list").stdout


def test_prices_are_listed_as_versions(command: Command) -> None:
    command("prices", "set", "tiny", "image", "100")
    command("prices", "set", "tiny", "image", "120", "--currency", "USD")
    versions = parsed(command("prices", "list", "--model", "tiny", "--json"))
    assert [(price["unit_price_micro"], price["currency"]) for price in versions] == [(100, "EUR"), (120, "USD")]
    assert "120" in command("prices", "list").stdout


def test_verify_says_so_and_exits_with_1_when_the_books_do_not_add_up(command: Command, tmp_path: Path) -> None:
    command("accounts", "create", "acme", "--budget", "5")
    assert parsed(command("ledger", "verify", "--json"))["entries"] == 1
    assert "clean" in command("ledger", "verify").stdout
    engine = open_engine(f"sqlite:///{tmp_path / 'vl2v' / 'vendor.db'}")
    with writing(engine).begin() as connection:
        connection.execute(text("UPDATE budgets SET limit_units = 6"))
    engine.dispose()
    result = command("ledger", "verify")
    assert result.exit_code == 1
    assert "budget_mismatch" in result.stdout
    result = command("ledger", "verify", "--json")
    assert (result.exit_code, json.loads(result.stdout)["problem_count"]) == (1, 1)


def test_what_a_server_of_an_older_version_made_is_told_and_signed(command: Command, tmp_path: Path) -> None:
    command("accounts", "create", "acme", "--budget", "5")
    command("accounts", "topup", "acme", "1")
    assert "is signed already" in command("ledger", "sign-entries").stdout
    engine = open_engine(f"sqlite:///{tmp_path / 'vl2v' / 'vendor.db'}")
    forget_signatures(engine)
    assert "not signed yet" in command("ledger", "verify").stdout
    command("accounts", "topup", "acme", "1")
    assert "unsigned before entry 2" in command("ledger", "verify").stdout
    forget_signatures(engine, "DELETE FROM entry_signatures WHERE seq = 3")
    engine.dispose()
    result = command("ledger", "verify")
    assert (result.exit_code, "unsigned_entry" in result.stdout) == (1, True)
    with pytest.raises(LedgerUnavailable, match=r"entry 3 .* has no signature"):
        command("accounts", "topup", "acme", "1")
    assert [seq for _, seq, _ in parsed(command("ledger", "sign-entries", "--json"))] == [3]
    command("accounts", "topup", "acme", "1")
    assert "clean" in command("ledger", "verify").stdout


def test_prune_counts_what_it_deletes(command: Command) -> None:
    command("accounts", "create", "acme")
    assert parsed(command("ledger", "prune", "--json")) == {"pruned": 0}


@pytest.mark.parametrize(
    "words", [("ledger", "verify"), ("accounts", "list"), ("ledger", "export", "--month", "2026-11")]
)
def test_a_command_that_only_looks_makes_no_database_to_call_clean(
    command: Command, tmp_path: Path, words: tuple[str, ...]
) -> None:
    with pytest.raises(NotFound, match=r"no database .*none\.db"):
        command(*words, "--database", f"sqlite:///{tmp_path / 'none.db'}")
    assert not list(tmp_path.iterdir())


def test_an_act_without_a_name_is_not_named_nothing(command: Command) -> None:
    command("accounts", "create", "acme", "--budget", "5")
    assert command("accounts", "topup", "acme", "5", "--request-id", "").exit_code == 2
    assert parsed(command("accounts", "list", "--json"))[0]["budget"]["limit_units"] == 5


def test_a_price_that_was_set_survives_a_start_whose_settings_name_another_one(
    command: Command, tmp_path: Path
) -> None:
    command("prices", "set", "m", "image", "500", "--currency", "USD")
    command("prices", "set", "m", "text", "50", "--currency", "USD")
    engine = open_engine(f"sqlite:///{tmp_path / 'vl2v' / 'vendor.db'}")
    signer = load_secrets(tmp_path / "vl2v" / "vendor-secrets.json").signer()
    books = SqlAccounts(engine, signer=signer, clock=FakeClock())
    for named, image in ({}, 500), ({"image_price_micro": 600}, 600), ({}, 600):
        _ensure_prices(books, "m", Settings(**named))
        newest = {price.modality: (price.unit_price_micro, price.currency) for price in books.prices("m")}
        assert newest == {"image": (image, "USD"), "text": (50, "USD")}
    _ensure_prices(books, "fresh", Settings(text_price_micro=7))
    newest = {price.modality: (price.unit_price_micro, price.currency) for price in books.prices("fresh")}
    assert newest == {"image": (100, "USD"), "text": (7, "USD")}
    engine.dispose()


async def test_commands_work_beside_a_running_ledger(
    command: Command, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vl2v_vendor.keys.secrets.VendorSecrets.signer", lambda _secrets: shop.signer)
    url = shop.engine.url.render_as_string(hide_password=False)

    async def buy(running: SqlLedger) -> None:
        for number in range(10):
            await running.charge(shop.order(f"image {number}"))

    async with shop.open_ledger() as running:
        purchases = asyncio.create_task(buy(running))
        result = await asyncio.to_thread(command, "accounts", "topup", "acme", "20", "--database", url)
        assert result.exit_code == 0
        result = await asyncio.to_thread(command, "keys", "create", "--account", "acme", "--database", url)
        await purchases
        assert await running.find_key(secret_sha256(result.stdout.strip())) is not None
        assert (await running.head(shop.account.id)).limit_units == 30
    assert command("ledger", "verify", "--database", url).exit_code == 0


def test_the_commands_load_no_model_and_no_web_framework(command: Command) -> None:
    command("accounts", "create", "acme")
    program = (
        "import sys; from vl2v_vendor.cli.app import run; assert run(['accounts', 'show', 'acme']) == 0;"
        "assert run(['ledger', 'verify']) == 0; assert 'sqlalchemy' in sys.modules;"
        "sys.exit(','.join({'torch', 'open_clip', 'fastapi', 'PIL', 'alembic'} & set(sys.modules)) or 0)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
