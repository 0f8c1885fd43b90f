"""The staff's commands beyond the first ones: an account's bill, keys' own budgets, the log, and acts done once."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from support.ledger.ledger_shop import Shop
from support.vendor.vendor_shell import Result, invoke
from vl2v_contract.records import SignedHead, StatementEntry
from vl2v_vendor.cli import main
from vl2v_vendor.cli.console import print_line, show_table
from vl2v_vendor.domain.errors import InvalidRequest, VendorError
from vl2v_vendor.ledger_sql.sql_ledger import SqlLedger

Command = Callable[..., Result]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs `vl2v-vendor` on a machine where nothing was ever run; refusals come out as they are raised."""
    for name in [name for name in os.environ if name.startswith("VL2V_VENDOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))

    def run(*arguments: str) -> Result:
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        return result

    return run


@pytest.fixture
def sold(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> tuple[Shop, tuple[str, str]]:
    """A shop that sold two images by a key with a budget of 3, and the option that names its database."""
    monkeypatch.setattr("vl2v_vendor.keys.secrets.VendorSecrets.signer", lambda _secrets: shop.signer)
    key, _ = shop.accounts.create_key(shop.account, scopes=shop.key.scopes, limit_units=3, name="pilot")

    async def story(ledger: SqlLedger) -> None:
        await ledger.charge(shop.order("a", "b", key=key))

    shop.run(story)
    return replace(shop, key=key), ("--database", shop.engine.url.render_as_string(hide_password=False))


def parsed(result: Result) -> Any:
    return json.loads(result.stdout)


def test_an_account_is_shown_with_its_keys_and_its_bill(command: Command, sold: tuple[Shop, tuple[str, str]]) -> None:
    shop, database = sold
    shown = parsed(command("accounts", "show", "acme", "--json", *database))
    assert shown["account"]["budget"] == {"limit_units": 10, "used_units": 2}
    budgets = {key["id"]: key["budget"] for key in shown["keys"]}
    assert budgets[shop.key.id] == {"limit_units": 3, "used_units": 2}
    assert list(budgets.values()).count(None) == 1
    totals = shown["totals"]
    assert (totals["units"], totals["amount_micro"], totals["by_key"][0]["name"]) == (2, 200, shop.key.id)
    table = command("accounts", "show", shop.account.id, *database).stdout
    for cell in ("1/3", "pilot", "/v1/embeddings/images", "200"):
        assert cell in table


def test_a_statement_is_whole_and_can_begin_anywhere(command: Command, sold: tuple[Shop, tuple[str, str]]) -> None:
    shop, database = sold

    async def expected(ledger: SqlLedger) -> list[str]:
        return [posted.entry_hash for posted in await ledger.entries(shop.account.id, after_seq=0, limit=10)]

    whole = parsed(command("accounts", "statement", "acme", "--json", *database))
    entries = [TypeAdapter(StatementEntry).validate_python(entry) for entry in whole["entries"]]
    assert [entry.entry.kind for entry in entries] == ["topup", "charge"]
    assert [entry.entry_hash for entry in entries] == asyncio.run(read(shop, expected))
    assert len(entries[1].items) == 2
    head = TypeAdapter(SignedHead).validate_python(whole["signed_head"]).head
    assert (head.seq, head.entry_hash, head.account_id) == (2, entries[1].entry_hash, shop.account.id)
    rest = parsed(command("accounts", "statement", "acme", "--after-seq", "1", "--json", *database))
    assert rest["entries"] == whole["entries"][1:]
    table = command("accounts", "statement", "acme", *database).stdout
    assert "first budget" in table
    assert "200 micro-EUR" in table


async def read(shop: Shop, story: Callable[[SqlLedger], Any]) -> Any:
    async with shop.open_ledger() as ledger:
        return await story(ledger)


def test_pages_of_a_long_statement_are_put_together(
    command: Command, sold: tuple[Shop, tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, database = sold
    for number in range(3):
        shop.accounts.top_up(shop.account, number + 1)
    whole = parsed(command("accounts", "statement", "acme", "--json", *database))["entries"]
    monkeypatch.setattr("vl2v_vendor.service.audit.Audit.statement.__defaults__", (0, 2))
    assert parsed(command("accounts", "statement", "acme", "--json", *database))["entries"] == whole
    assert [entry["entry"]["seq"] for entry in whole] == [1, 2, 3, 4, 5]


def test_keys_are_listed_with_what_is_left_of_their_budgets(
    command: Command, sold: tuple[Shop, tuple[str, str]]
) -> None:
    shop, database = sold
    table = command("keys", "list", *database).stdout
    assert "LEFT/LIMIT" in table
    assert "1/3" in table
    command("keys", "revoke", shop.key.id, *database)
    assert "revoked" in command("keys", "list", "--account", "acme", *database).stdout
    listed = parsed(command("keys", "list", "--account", "acme", "--json", *database))
    budgets = {key["id"]: key["budget"] for key in listed}
    assert budgets.pop(shop.key.id) == {"limit_units": 3, "used_units": 2}
    assert list(budgets.values()) == [None]


def test_a_key_and_its_account_are_made_once_under_one_request_id(command: Command) -> None:
    words = ("keys", "create", "--account", "acme", "--budget", "5", "--expires", "1", "--request-id", "setup")
    first, again = parsed(command(*words, "--json")), parsed(command(*words, "--json"))
    assert first["secret"].startswith("vl2v_")
    assert again == {**first, "secret": None}
    repeated = command(*words)
    assert repeated.stdout == ""
    assert f"keys revoke {first['key']['id']}" in repeated.stderr
    assert len(parsed(command("keys", "list", "--json"))) == len(parsed(command("accounts", "list", "--json"))) == 1
    with pytest.raises(InvalidRequest, match="another act"):
        command(*words, "--name", "other")


def test_prices_and_revocations_are_done_once_under_one_request_id(command: Command) -> None:
    command("keys", "create", "--account", "acme", "--budget", "5")
    [key] = parsed(command("keys", "list", "--json"))
    for _ in range(2):
        price = parsed(command("prices", "set", "tiny", "image", "100", "--request-id", "january", "--json"))
        revoked = parsed(command("keys", "revoke", key["id"], "--request-id", "leak", "--json"))
        assert (price["id"], revoked["id"]) == (1, key["id"])
    assert len(parsed(command("prices", "list", "--json"))) == 1
    acts = [act["act"] for act in parsed(command("log", "--json"))]
    assert acts == ["create_account", "create_key", "set_price", "revoke_key"]
    with pytest.raises(InvalidRequest, match="another act"):
        command("prices", "set", "tiny", "image", "200", "--request-id", "january")
    with pytest.raises(InvalidRequest, match="64 characters"):
        command("prices", "set", "tiny", "image", "200", "--request-id", "x" * 65)


def test_the_log_lists_acts_with_their_actor_newest_last(command: Command) -> None:
    command("accounts", "create", "acme", "--budget", "5")
    command("accounts", "create", "globex")
    command("accounts", "topup", "acme", "7", "--note", "invoice 7", "--request-id", "invoice-7")
    acts = parsed(command("log", "--json"))
    assert [(act["act"], act["request_id"]) for act in acts][2:] == [("top_up", "invoice-7")]
    assert {act["actor"] for act in acts} == {f"cli:{getpass.getuser()}"}
    assert acts[2]["outcome"] == {"seq": 2}
    assert parsed(command("log", "--account", "acme", "--json")) == [acts[0], acts[2]]
    assert parsed(command("log", "--after-id", str(acts[1]["id"]), "--json")) == acts[2:]
    table = command("log").stdout
    assert table.index("create_account") < table.index("top_up")
    assert f"cli:{getpass.getuser()}" in table


def test_words_of_others_do_not_steer_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile, shown = "a\x1b[2J\r[red]b[/] :smile: \u202e\nc", r"a\x1b[2J\r[red]b[/] :smile: \u202e\nc"
    print_line(hostile)
    print_line(hostile, err=True)
    show_table([hostile], [[hostile], [None]])
    printed = capsys.readouterr()
    assert printed.err == f"{shown}\n"
    assert printed.out.count(shown) == 3
    assert not {letter for letter in printed.out if not letter.isprintable()} - {"\n"}

    for error in (VendorError(hostile), OSError(hostile), ValueError(hostile)):
        monkeypatch.setattr("vl2v_vendor.cli.app.invoke", partial(_fail, error))
        with pytest.raises(SystemExit):
            main()
        told = capsys.readouterr().err
        assert shown in told
        assert not {letter for letter in told if not letter.isprintable()} - {"\n"}


def _fail(error: Exception, _words: object) -> None:
    raise error
