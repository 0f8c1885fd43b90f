"""A run whose purchase was cut short goes on as it is: nothing is bought again, and its targets stay what they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch
from PIL import Image

from support.client.buying_bench import draw_domains
from support.client.client_shell import QUICK, ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import BudgetExhausted, NotAuthorized, RunError
from vl2v_contract.identity import text_sha

TRAIN, TEXTS, VIEWS = 16, 2, 4


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    torch.set_num_threads(1)
    draw_domains(tmp_path / "data", 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", str(VIEWS), "--yes")


def refuse_the_key(vendor: FakeVendor, *, at_request: int) -> None:
    """Sell four items at a time, and refuse the API key once, at that request for embeddings."""
    calls = 0

    def fail(request: httpx.Request) -> httpx.Response | None:
        nonlocal calls
        calls += request.url.path.startswith("/v1/embeddings/")
        return vendor.problem(401, "unauthenticated") if calls == at_request else None

    vendor.max_items, vendor.before = 4, fail


def test_the_same_partial_command_again_buys_nothing_and_ends_the_same(vendor: FakeVendor, shell: ClientShell) -> None:
    words = ("--partial", "--max-queries", "10")
    shell.distill(*words)
    first = shell.read("report.json")
    assert (vendor.billed_units, first["purchase"]["images"]) == (10, 10 - TEXTS)
    again = shell.try_distill(*words)
    assert (vendor.billed_units, shell.read("report.json")) == (10, first)
    assert f"{TRAIN * VIEWS + TEXTS - 10} queries stay out of it" in again.output


def test_a_run_that_was_killed_while_it_trained_keeps_its_targets_whatever_comes_into_the_cache(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("--partial", "--max-queries", "10")

    def die(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vl2v_client.recipes.distill.score_classifier", die)
        shell.try_distill(*words)
    assert (shell.run_folder / "methods" / "vl2v-adip" / "checkpoints" / "align.pt").exists()
    assert not (shell.run_folder / "report.json").exists()
    assert shell.run("buy").exit_code == 0  # another command fills the cache
    before = vendor.billed_units
    shell.distill()  # whether it still says --partial or not
    assert (vendor.billed_units, shell.read("report.json")["purchase"]["images"]) == (before, 10 - TEXTS)
    assert shell.read("report.json")["settings"]["views bought"] == f"{10 - TEXTS} of {TRAIN * VIEWS}"


def test_a_choice_that_the_budget_cut_short_is_not_made_up_for_later(vendor: FakeVendor, shell: ClientShell) -> None:
    words = ("--partial", "--select", "random", "--max-queries", "20")
    vendor.post("topup", 8 - vendor.limit_units, [])
    shell.distill(*words)
    first = shell.read("report.json")
    vendor.post("topup", 100, [])
    shell.distill(*words)
    assert (vendor.billed_units, shell.read("report.json")) == (8, first)


def test_an_image_that_failed_stays_out_of_the_run(vendor: FakeVendor, shell: ClientShell) -> None:
    assert shell.run("buy", cache="other.db").exit_code == 0
    prompts = {text_sha(f"a photo of a {name}") for name in ("cat", "dog")}
    vendor.bad_contents = {next(paid.content_sha for paid in vendor.paid.values() if paid.content_sha not in prompts)}
    before = vendor.billed_units
    shell.distill("--skip-failed")
    first = shell.read("report.json")
    assert first["purchase"]["images"] == TRAIN * VIEWS - 1
    vendor.bad_contents = set()
    shell.distill("--skip-failed")
    assert (vendor.billed_units - before, shell.read("report.json")) == (TRAIN * VIEWS + TEXTS - 1, first)


def test_what_the_cache_has_lost_is_bought_again_and_no_more(vendor: FakeVendor, shell: ClientShell) -> None:
    words = ("--partial", "--max-queries", "10")
    shell.distill(*words)
    first = shell.read("report.json")
    shell.distill(*words, cache="empty.db")
    assert (vendor.billed_units, shell.read("report.json")["rows"]) == (20, first["rows"])


def test_without_its_texts_a_run_is_not_begun_and_goes_on_buying(vendor: FakeVendor, shell: ClientShell) -> None:
    words = ("--out", str(shell.run_folder), *QUICK, "--partial", "--max-queries")
    refused = shell.run("distill", *words, "1")
    assert "nothing trains without it" in str(refused.exception)
    assert not (shell.run_folder / "used.json").exists()
    shell.distill("--partial", "--max-queries", "9")
    assert vendor.billed_units == 9  # the first one counts


@pytest.mark.parametrize(
    ("cap", "units"), [(("--max-queries", "11"), 11), (("--max-cost", "0.00092"), 9 + TEXTS)], ids=["queries", "money"]
)
def test_a_run_that_is_killed_while_it_buys_goes_on_under_what_is_left_of_its_cap(
    vendor: FakeVendor, shell: ClientShell, cap: tuple[str, str], units: int
) -> None:
    refuse_the_key(vendor, at_request=3)
    killed = shell.try_distill("--partial", *cap)
    assert isinstance(killed.exception, NotAuthorized)
    assert TEXTS < vendor.billed_units < units
    done = shell.try_distill("--partial", *cap)
    assert vendor.billed_units == units
    assert "queries are bought: raise it to" in done.output
    assert shell.read("report.json")["purchase"]["images"] == units - TEXTS


def test_what_other_commands_bought_does_not_count_for_a_run_s_cap(vendor: FakeVendor, shell: ClientShell) -> None:
    words = ("--max-queries", "10")
    refused = shell.try_distill(*words)
    assert isinstance(refused.exception, BudgetExhausted)
    wanted = TRAIN * VIEWS + TEXTS
    shell.run("buy", "--partial", "--max-queries", str(wanted - 10))
    assert shell.try_distill(*words).exit_code == 0
    assert vendor.billed_units == wanted


def test_a_call_without_a_cap_counts_for_a_later_one(vendor: FakeVendor, shell: ClientShell) -> None:
    refuse_the_key(vendor, at_request=4)
    assert isinstance(shell.try_distill().exception, NotAuthorized)
    assert 4 < vendor.billed_units < 40
    assert shell.try_distill("--partial", "--max-queries", "40").exit_code == 0
    assert vendor.billed_units == 40


def test_a_run_that_was_too_dear_is_begun_anew_with_fewer_views(vendor: FakeVendor, shell: ClientShell) -> None:
    assert isinstance(shell.try_distill("--max-queries", "10").exception, BudgetExhausted)
    assert shell.try_distill("--views", "0", "--max-queries", "10").exit_code == 0
    assert vendor.billed_units == TEXTS


def test_a_purchase_that_is_done_wants_the_images_that_it_bought(vendor: FakeVendor, shell: ClientShell) -> None:
    shell.distill()
    billed = vendor.billed_units
    for path in (shell.folder / "data" / "art").rglob("*.png"):
        Image.new("RGB", (12, 10), (int(path.stem), len(path.parts[-2]), 9)).save(path)
    refused = shell.try_distill()
    assert isinstance(refused.exception, RunError)
    assert "images that have changed since" in str(refused.exception)
    assert vendor.billed_units == billed
