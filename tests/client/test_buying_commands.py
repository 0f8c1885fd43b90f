"""`plan`, `buy`, `audit` and `cache` as commands: what they print, and the codes they end with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.client.buying_bench import count_listings, draw_pictures
from support.client.client_shell import ClientShell
from support.client.fake_ledger import rechained
from support.client.fake_vendor import API_KEY, FakeVendor, served
from support.vendor.tiny_clip import write_tiny_clip
from vl2v_client.cli.app import run
from vl2v_client.cli.vendor import open_vendor
from vl2v_client.config.run import PurchaseConfig
from vl2v_client.core.errors import BudgetExhausted, CacheError, DataError, NotAuthorized, UsageError, VendorUnavailable
from vl2v_contract.wire.headers import OCTET_STREAM, RGB8_TENSOR


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    """Two domains of two classes of five pictures: 20, of which 16 train, as five contents; 2 class prompts."""
    for domain in ("photo", "sketch"):
        for name in ("cat", "dog"):
            draw_pictures(tmp_path / "data" / domain / name, 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--views", "2")


def test_plan_then_buy_then_nothing_to_buy(vendor: FakeVendor, shell: ClientShell) -> None:
    planned = shell.json("plan")
    assert vendor.billed_units == 0
    assert (planned["cached"], planned["texts"], planned["remaining_units"]) == (0, 2, 10_000)
    assert isinstance(shell.run("buy", "--json").exception, UsageError)
    assert vendor.billed_units == 0
    bought = shell.json("buy", "--yes")
    assert bought["billed_units"] == planned["new_queries"] == vendor.billed_units
    assert bought["amount_micro"] == planned["amount_micro"]
    assert "nothing to buy" in shell.run("buy").stdout
    assert shell.json("plan")["new_queries"] == 0


@pytest.mark.parametrize("most", [20_000, 1])
def test_plan_lists_the_data_set_once(shell: ClientShell, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr("vl2v_client.recipes.plan.EXACT_VIEWS", most)
    listed = count_listings(monkeypatch)
    assert shell.json("plan")["exact"] is (most > 1)
    assert {*listed.values()} == {1}


@pytest.mark.parametrize("online", [False, True])
def test_distill_lists_the_data_set_once(shell: ClientShell, monkeypatch: pytest.MonkeyPatch, online: bool) -> None:
    words = ("--method", "text-cosine", "--target-domain", "sketch")
    if online:
        spec = write_tiny_clip(shell.folder)
        words = (*words, "--local-teacher", str(spec.config_file), "--local-weights", str(spec.checkpoint_file))
    listed = count_listings(monkeypatch)
    assert shell.try_distill(*words).exit_code == 0
    assert (len(listed), {*listed.values()}) == (4, {1})


@pytest.mark.parametrize(("wanted", "sent"), [("raw", RGB8_TENSOR), ("png", OCTET_STREAM), ("auto", RGB8_TENSOR)])
def test_a_variable_says_how_images_are_sent(vendor: FakeVendor, shell: ClientShell, wanted: str, sent: str) -> None:
    vendor.speaks_frames = True
    seen: set[str] = set()

    def note(request: httpx.Request) -> None:
        if request.url.path.endswith("images"):
            seen.add(request.headers["content-type"])

    vendor.before = note
    assert shell.run("buy", "--yes", VL2V_UPLOAD=wanted).exit_code == 0
    assert seen == {sent}
    assert "nothing to buy" in shell.run("buy", VL2V_UPLOAD="png").stdout
    wrong = shell.run("buy", "--yes", VL2V_UPLOAD="zip").exception
    assert isinstance(wrong, UsageError)
    assert "auto, raw, png" in str(wrong)


def test_plan_shows_price_and_what_is_left(shell: ClientShell) -> None:
    shown = shell.run("plan")
    assert shown.exit_code == 0
    for part in ("fake/clip", "to buy", "EUR", "budget left", "10,000"):
        assert part in shown.stdout


def test_plan_refuses_above_a_cap_after_showing_the_plan(shell: ClientShell) -> None:
    refused = shell.run("plan", "--max-queries", "3")
    assert isinstance(refused.exception, BudgetExhausted)
    assert "to buy" in refused.stdout


def test_buy_asks_before_it_spends(vendor: FakeVendor, shell: ClientShell) -> None:
    answer = shell.run("buy")
    assert answer.exit_code == 1
    assert "Buy this?" in answer.output
    assert vendor.billed_units == 0


def test_a_key_that_is_none_is_named_by_the_plan_and_one_that_may_not_read_the_bill_is_not(
    vendor: FakeVendor, shell: ClientShell
) -> None:
    refused = shell.run("plan", VL2V_API_KEY="vl2v_" + "x" * 43)
    assert isinstance(refused.exception, NotAuthorized)
    summary = "/v1/billing/summary"
    vendor.before = lambda request: vendor.problem(403, "forbidden") if request.url.path == summary else None
    assert shell.json("plan")["remaining_units"] is None
    assert shell.run("buy", "--yes").exit_code == 0


def test_a_partial_purchase_ends_with_the_budgets_error(vendor: FakeVendor, shell: ClientShell) -> None:
    ended = shell.run("buy", "--yes", "--partial", "--max-queries", "5")
    assert isinstance(ended.exception, BudgetExhausted)
    assert vendor.billed_units == 5


def test_without_a_vendor_the_last_prices_still_make_a_plan(vendor: FakeVendor, shell: ClientShell) -> None:
    first = shell.json("plan")
    vendor.before = lambda _request: httpx.Response(503, headers={"Retry-After": "0", "X-Should-Retry": "false"})
    again = shell.run("plan")
    assert again.exit_code == 0
    assert "last visit" in again.stderr
    assert f"{first['new_queries']:,}" in again.stdout
    assert isinstance(shell.run("buy", "--yes").exception, VendorUnavailable)


def test_audit_ends_with_0_1_or_2(vendor: FakeVendor, shell: ClientShell) -> None:
    shell.run("buy", "--yes")
    clean = shell.run("audit")
    assert (clean.exit_code, "both books agree" in clean.stdout) == (0, True)
    vendor.history = lambda history: rechained([*history, history[-1]])
    lied = shell.run("audit")
    assert lied.exit_code == 1
    assert "duplicate_item" in lied.stdout
    assert "ask for a refund" in lied.stdout
    unverified = shell.run("audit", "--json", VL2V_API_KEY="vl2v_wrong")
    assert unverified.exit_code == 2
    assert json.loads(unverified.stdout)["exit_code"] == 2
    assert "VL2V_API_KEY" in unverified.stderr


def test_cache_stats_and_verify(vendor: FakeVendor, shell: ClientShell, tmp_path: Path) -> None:
    shell.run("buy", "--yes")
    assert shell.json("cache", "stats")["vendors"][0]["paid_items"] == vendor.billed_units
    assert "fake-ledger" in shell.run("cache", "stats").stdout
    assert shell.json("cache", "verify") == {
        "items": vendor.billed_units,
        "damage": {},
        "examples": [],
        "clean": True,
    }
    assert "every vector and receipt is sound" in shell.run("cache", "verify").stdout
    junk = tmp_path / "junk.db"
    junk.write_text("junk " * 400)
    assert isinstance(shell.run("cache", "verify", "--cache", str(junk)).exception, CacheError)


def test_the_key_is_never_shown(vendor: FakeVendor, shell: ClientShell) -> None:
    for words in (["plan"], ["buy", "--yes"], ["audit"], ["cache", "stats"], ["plan", "--help"]):
        assert API_KEY not in shell.run(*words).output


@pytest.mark.parametrize(("typed", "micro"), [("0", 0), ("2.50", 2_500_000), ("0.000001", 1), ("1e3", 10**9)])
def test_money_as_typed(typed: str, micro: int) -> None:
    assert PurchaseConfig.model_validate({"max_cost": typed}).max_cost_micro == micro
    assert PurchaseConfig().max_cost_micro is None


@pytest.mark.parametrize("typed", ["", "two", "-1", "0.0000001", "nan", "inf"])
def test_money_that_is_none(shell: ClientShell, typed: str) -> None:
    refused = shell.run("plan", "--max-cost", typed)
    assert refused.exit_code == 2
    assert "--max-cost" in refused.stderr


def test_a_key_sent_in_the_clear_is_warned_of_once_without_showing_it(capfd: pytest.CaptureFixture[str]) -> None:
    open_vendor("http://vendor.example", API_KEY).close()
    told = capfd.readouterr().err
    assert told.count("unencrypted") == told.count("https://") == 1
    assert API_KEY not in told
    open_vendor("https://vendor.example", API_KEY).close()
    assert capfd.readouterr().err == ""


def test_words_of_others_neither_colour_nor_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", "no\x1b[2Jsuch[red]run\nerror: bought", "cat.png"]) == DataError.exit_code
    shown = capsys.readouterr().err
    assert shown.startswith("error: no\\x1b[2Jsuch[red]run\n  error: bought does not exist: give")
    assert not {letter for letter in shown if not letter.isprintable()} - {"\n"}


@pytest.mark.parametrize(
    "words",
    [
        ("plan", "--views", "1.5"),
        ("buy", "--max-queries", "2.5"),
        ("pilot", "--queries", "200.4"),
        ("sweep", "--seed", "0", "--seed", "1.5"),
        ("distill", "--batch-size", "0x20"),
    ],
)
def test_what_is_no_whole_number_is_refused_and_not_rounded(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([words[0], "--data", "nowhere", *words[1:]]) == 2
    assert f"{words[-1]!r} is not a whole number" in capsys.readouterr().err
