"""`--max-queries N --select NAME --impute NAME` through `plan`, `buy` and `distill`: one choice, one bill, reported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.client_shell import QUICK, ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import BudgetExhausted, UsageError

TRAIN, TEXTS = 16, 2


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[tuple[ClientShell, FakeVendor]]:
    torch.set_num_threads(1)
    vendor = FakeVendor(image_size=32)
    draw_domains(tmp_path / "data", 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "2"), vendor


@pytest.mark.parametrize("select", ["random", "k-center"])
def test_plan_shows_the_choice_that_buy_and_distill_make(shell: tuple[ClientShell, FakeVendor], select: str) -> None:
    run, vendor = shell
    words = ("--max-queries", "8", "--select", select)
    planned = run.json("plan", *words)
    assert (planned["new_queries"], planned["chosen_views"], planned["views"]) == (8, 6, 2 * TRAIN)
    assert "of which 6 are chosen" in run.run("plan", *words).stdout
    assert vendor.billed_units == 0
    assert run.json("buy", "--yes", *words)["billed_units"] == 8
    report = run.distill(*words, "--impute", "ridge")
    assert vendor.billed_units == 8
    assert report["purchase"]["images"] == 6
    assert report["settings"]["views bought"] == f"6 of {2 * TRAIN}"
    assert report["settings"]["selection"] == f"{select}, within 8 queries"
    config = json.loads((run.folder / "run" / "config.json").read_text())
    assert (config["purchase"]["select"], config["purchase"]["max_queries"]) == (select, 8)
    assert config["purchase"]["impute"] == "ridge"
    again = run.distill(*words, "--impute", "ridge")
    assert (again, vendor.billed_units) == (report, 8)


def test_the_whole_cache_does_not_help_a_run_that_may_use_less(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, vendor = shell
    assert run.json("buy", "--yes")["billed_units"] == 2 * TRAIN + TEXTS
    report = run.distill("--max-queries", "6", "--select", "random")
    assert vendor.billed_units == 2 * TRAIN + TEXTS
    assert (report["purchase"]["images"], report["settings"]["views bought"]) == (4, f"4 of {2 * TRAIN}")


def test_imputed_targets_train_and_are_reported(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, vendor = shell
    near = np.eye(vendor.dimension, dtype=np.float32)[0]
    digest = vendor.vector
    vendor.vector = lambda sha: ((near + 0.1 * digest(sha)) / np.linalg.norm(near + 0.1 * digest(sha))).astype("f4")
    imputed = run.distill("--max-queries", "10", "--select", "random", "--impute", "ridge")
    shown = imputed["settings"]["imputation"]
    assert shown.startswith(f"ridge, {2 * TRAIN - 8} views, at 0.9")
    config = json.loads((run.folder / "run" / "config.json").read_text())
    assert config["purchase"]["impute"] == "ridge"
    assert vendor.billed_units == 10


def test_what_does_not_fit_together_costs_nothing(shell: tuple[ClientShell, FakeVendor]) -> None:
    run, vendor = shell
    for words, kind, complaint in (
        (("--select", "random"), UsageError, "give both"),
        (("--select", "best", "--max-queries", "9"), UsageError, '"best" for --select'),
        (("--select", "random", "--max-queries", "1"), BudgetExhausted, "cannot hold the 2 texts"),
        (("--max-queries", "9"), BudgetExhausted, "--max-queries allows 9"),
    ):
        refused = run.run("buy", "--yes", *words)
        assert isinstance(refused.exception, kind), refused.output
        assert complaint in str(refused.exception)
    refused = run.run("distill", "--yes", "--impute", "best", "--out", str(run.folder / "other"), *QUICK)
    assert '"best" for --impute' in str(refused.exception)
    assert vendor.billed_units == 0
