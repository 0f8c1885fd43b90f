"""What a view recipe asks, exactly, through `plan`, `buy` and `distill`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.client_shell import QUICK, ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import UsageError
from vl2v_client.data.views import VIEW_RECIPES
from vl2v_client.planning.queries import pixels_sha
from vl2v_client.runs.teacher_answers import lend_to_all_views
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.student.train.training_data import TrainingData
from vl2v_client.teacher.targets import ImageTargets

STUDENT_SIZE = 64
TRAIN, CLASSES = 16, 2  # two source domains of two classes of five pictures, less the hold-out


@pytest.fixture
def vendor() -> FakeVendor:
    return FakeVendor(image_size=32)


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    torch.set_num_threads(1)
    draw_domains(tmp_path / "data", 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainingData]:
    """What each training read."""
    read: list[TrainingData] = []

    def note(method: Any, classifier: Any, data: TrainingData, *arguments: Any, **options: Any) -> TrainingResult:
        read.append(data)
        return train(method, classifier, data, *arguments, **options)

    monkeypatch.setattr("vl2v_client.runs.method_training.train", note)
    return read


@pytest.mark.parametrize(
    ("words", "images"),
    [
        (("--views", "0"), 0),
        (("--views", "1"), TRAIN),
        (("--views", "3"), 3 * TRAIN),
        (("--views", "3", "--view-recipe", "styles"), 3 * TRAIN),
        (("--views", "5", "--view-recipe", "all-styles"), 5 * TRAIN),
        (("--views", "0", "--view-recipe", "styles"), 0),
    ],
)
def test_a_plan_counts_exactly_what_is_bought(
    vendor: FakeVendor, shell: ClientShell, words: tuple[str, ...], images: int
) -> None:
    planned = shell.json("plan", *words)
    assert (planned["views"], planned["texts"]) == (images, CLASSES)
    assert planned["new_queries"] == images + CLASSES
    assert shell.json("buy", "--yes", *words)["billed_units"] == planned["new_queries"] == vendor.billed_units


@pytest.mark.parametrize("views", ["0", "1"])
@pytest.mark.parametrize("recipe", VIEW_RECIPES)
def test_text_only_and_canonical_views_train_with_every_recipe(
    vendor: FakeVendor, shell: ClientShell, recipe: str, views: str
) -> None:
    words = ("--views", views, "--view-recipe", recipe)
    assert shell.json("plan", *words)["new_queries"] == int(views) * TRAIN + CLASSES
    shell.json("buy", "--yes", *words)
    shell.distill(*words)
    assert vendor.billed_units == int(views) * TRAIN + CLASSES


def test_what_trains_is_what_was_bought(vendor: FakeVendor, shell: ClientShell, trained: list[TrainingData]) -> None:
    shell.distill("--views", "4", "--train-views", "4", "--view-recipe", "all-styles")
    (data,) = trained
    assert data.train.pixels.shape == (TRAIN, 4, STUDENT_SIZE, STUDENT_SIZE, 3)
    rendered = {pixels_sha(view) for view in data.train.at(vendor.image_size).first(4)[:]}
    assert len(rendered) == 4 * TRAIN
    assert rendered < {paid.content_sha for paid in vendor.paid.values()}


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> list[ImageTargets]:
    """The targets of every view that a run trains on."""
    kept: list[ImageTargets] = []

    def note_targets(*arguments: Any, **options: Any) -> ImageTargets:
        kept.append(lend_to_all_views(*arguments, **options))
        return kept[-1]

    monkeypatch.setattr("vl2v_client.runs.method_training.lend_to_all_views", note_targets)
    return kept


def test_more_views_are_trained_on_than_bought(
    vendor: FakeVendor, shell: ClientShell, trained: list[TrainingData], lent: list[ImageTargets]
) -> None:
    words = ("--views", "1", "--view-recipe", "all-styles")
    planned = shell.json("plan", *words)["new_queries"]
    report = shell.distill(*words, "--train-views", "3")
    assert vendor.billed_units == planned == TRAIN + CLASSES
    assert report["settings"]["views bought"] == f"{TRAIN} of {TRAIN}"
    assert report["settings"]["views that borrow"] == f"{2 * TRAIN} of {3 * TRAIN}, the mean target of its bought views"
    assert report["settings"]["imputation"].startswith("none")
    assert [data.train.view_count for data in trained] == [3]
    (targets,) = lent
    assert targets.weights.tolist() == [[1, 1, 1]] * TRAIN
    assert targets.bought.tolist() == [[True, False, False]] * TRAIN
    for view in (1, 2):
        np.testing.assert_allclose(targets.vectors[:, view], targets.vectors[:, 0], atol=1e-6)


def test_the_report_counts_the_views_that_borrow_among_those_that_are_asked_about(shell: ClientShell) -> None:
    words = ("--views", "3", "--train-views", "3", "--select", "random-views")
    report = shell.distill(*words, "--max-queries", str(CLASSES + TRAIN + 3))
    borrowing = report["settings"]["views that borrow"]
    assert borrowing == f"{2 * TRAIN - 3} of {3 * TRAIN}, the mean target of its bought views"


def test_views_that_are_not_bought_may_train_on_their_text_alone(shell: ClientShell, lent: list[ImageTargets]) -> None:
    report = shell.distill("--views", "1", "--train-views", "3", "--unbought", "text")
    assert report["settings"]["views that borrow"] == "none"
    (targets,) = lent
    assert targets.weights.tolist() == [[1, 0, 0]] * TRAIN
    assert not targets.vectors[:, 1:].any()


def test_views_that_are_not_bought_may_be_left_out(
    vendor: FakeVendor, shell: ClientShell, trained: list[TrainingData], lent: list[ImageTargets]
) -> None:
    words = ("--views", "3", "--select", "random-views", "--unbought", "leave-out", "--view-recipe", "all-styles")
    report = shell.distill(*words, "--max-queries", str(CLASSES + TRAIN + 3))
    assert report["settings"]["views bought"] == f"{TRAIN + 3} of {3 * TRAIN}"
    (data,), (targets,) = trained, lent
    assert data.targets is not None
    assert data.train.view_count == 2
    assert data.targets.bought.all()
    shown = {pixels_sha(view) for view in data.train.at(vendor.image_size).first(2)[:]}
    assert len(shown) == TRAIN + 3
    assert shown < {paid.content_sha for paid in vendor.paid.values()}  # texts are paid too
    for row in range(TRAIN):
        bought = np.flatnonzero(targets.bought[row])
        for view, number in enumerate([bought[0], bought[-1]]):
            np.testing.assert_array_equal(data.targets.vectors[row, view], targets.vectors[row, number])


def test_an_image_without_an_answer_keeps_its_views_where_others_are_left_out(
    shell: ClientShell, trained: list[TrainingData]
) -> None:
    words = ("--train-views", "3", "--unbought", "leave-out")
    shell.distill("--views", "3", "--select", "random", "--max-queries", str(CLASSES + 4), *words)
    shell.distill("--views", "0", *words, "--out", str(shell.folder / "text-alone"))
    some, none = trained
    assert none.train.view_count == some.train.view_count == 3
    assert some.targets is not None
    assert sorted(some.targets.bought.sum(axis=1).tolist()) == [0] * (TRAIN - 4) + [3] * 4
    names = np.array(some.train.keys).reshape(TRAIN, 3).tolist()
    assert [len(set(of_one)) for of_one in names] == [1 if row.all() else 3 for row in some.targets.bought]


def test_a_run_trusts_answers_by_their_agreement(shell: ClientShell, lent: list[ImageTargets]) -> None:
    words = ("--views", "2", "--train-views", "3", "--view-recipe", "all-styles", "--trust", "agreement")
    report = shell.distill(*words)
    assert report["settings"]["trust"] == "agreement"
    assert report["settings"]["views that borrow"].endswith(f" of {3 * TRAIN}, the canonical view's target")
    (targets,) = lent
    assert targets.bought.tolist() == [[True, True, False]] * TRAIN
    np.testing.assert_array_equal(targets.weights[:, 2], targets.weights[:, 0])  # lent by the canonical view alone
    (agreement,) = set(targets.weights[:, 0].tolist()) - {0}
    assert agreement == pytest.approx((targets.weights[:, 0] > 0).mean())


def test_text_alone_trains_on_more_views_too(vendor: FakeVendor, shell: ClientShell) -> None:
    report = shell.distill("--views", "0", "--train-views", "3", "--label-weight", "0.5")
    assert vendor.billed_units == CLASSES
    assert report["settings"]["views bought"] == "0 of 0"
    assert report["settings"]["label weight"] == "0.5"
    rows = [json.loads(line) for path in shell.folder.rglob("metrics.jsonl") for line in path.read_text().splitlines()]
    assert rows
    assert max(row["labels"] for row in rows) > 1  # a step whose few views are all recognised may have none


@pytest.mark.parametrize("words", [(), ("--soft-label-weight", "4")])
def test_soft_labels_are_a_term_of_every_stage_where_they_are_wished(
    shell: ClientShell, words: tuple[str, ...]
) -> None:
    shell.distill("--views", "2", *words)
    rows = [json.loads(line) for path in shell.folder.rglob("metrics.jsonl") for line in path.read_text().splitlines()]
    assert {row["stage"] for row in rows} == {"align", "distill"}
    assert all(("soft" in row) == bool(words) for row in rows if "image" in row)
    assert any("image" in row for row in rows)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--views", "4", "--train-views", "3"), "--train-views 3 is less than --views 4"),
        (("--views", "0", "--soft-label-weight", "4"), "--soft-label-weight needs answers about images, and --views 0"),
        (("--label-weight", "inf"), "--label-weight inf: input should be a finite number"),
    ],
)
def test_a_run_that_makes_no_sense_buys_nothing(
    vendor: FakeVendor, shell: ClientShell, words: tuple[str, ...], complaint: str
) -> None:
    refused = shell.run("distill", *QUICK, "--yes", *words)
    assert isinstance(refused.exception, UsageError), refused.output
    assert complaint in str(refused.exception)
    assert vendor.billed_units == 0


def test_styled_views_of_a_method_without_image_targets_are_rendered_and_not_bought(
    vendor: FakeVendor, shell: ClientShell, trained: list[TrainingData]
) -> None:
    shell.distill("--method", "erm", "--views", "3", "--train-views", "3", "--view-recipe", "styles")
    assert vendor.billed_units == CLASSES
    assert {data.train.pixels.shape for data in trained} == {(TRAIN, 3, STUDENT_SIZE, STUDENT_SIZE, 3)}
    report = shell.distill("--method", "erm", "--views", "3", "--train-views", "3", "--view-recipe", "styles")
    assert report["settings"]["views bought"] == f"0 of {3 * TRAIN}"


def test_an_unknown_recipe_is_refused(shell: ClientShell) -> None:
    refused = shell.run("plan", "--view-recipe", "moods")
    assert isinstance(refused.exception, UsageError), refused.output
    assert '"moods" for --view-recipe. Choose from: "standard"' in str(refused.exception)
