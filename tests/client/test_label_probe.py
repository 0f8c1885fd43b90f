"""The probe on labels alone that a distilled student must not fall below, and the run that exports the better one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from support.client.student_factories import CLASSES, coloured_views, fresh_classifier, teacher_targets
from vl2v_client.core.errors import DataError
from vl2v_client.core.values import Sample
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.splits import split
from vl2v_client.evaluation.accuracy import read_predictions
from vl2v_client.runs import method_training
from vl2v_client.student.loss.methods import TrainingConfig
from vl2v_client.student.model.classifier import StudentClassifier, student_input
from vl2v_client.student.model.network import build_student
from vl2v_client.student.model.spec import resolve_student
from vl2v_client.student.train import loop
from vl2v_client.student.train.closed_form import PENALTIES, fit_probe
from vl2v_client.student.train.results import TrainingResult, score
from vl2v_client.student.train.training_data import LabelledViews, TrainingData

CONFIG = TrainingConfig(batch_size=100, evaluation_batch_size=5, device="cpu")
PROBE, METHOD = "ridge probe", "VL2V-ADiP"
COLOURS = {"cat": (200, 60, 60), "dog": (60, 200, 60), "emu": (60, 60, 200)}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _features(classifier: StudentClassifier, views: LabelledViews, count: int) -> np.ndarray:
    with torch.no_grad():
        inputs = student_input(views.first(count)[:], classifier.input, torch.device("cpu"))
        return classifier.student.eval().features(inputs).half().double().numpy()  # as they are kept


def test_the_probe_is_the_ridge_regression_of_the_labels_whose_penalty_the_hold_out_likes_best() -> None:
    train, held_out = coloured_views(7, seed=1), coloured_views(6, views=1, seed=2)
    classifier = fresh_classifier(text=False)
    before = {name: value.clone() for name, value in classifier.student.backbone.state_dict().items()}
    x, one_hot = _features(classifier, train, 2), np.eye(len(CLASSES))[train.labels].repeat(2, axis=0)
    centred, middle = x - x.mean(axis=0), one_hot.mean(axis=0)
    expected = []
    for penalty in PENALTIES:
        ridge = len(x) * penalty * centred.var(axis=0).mean() * np.eye(x.shape[1])
        weights = np.linalg.solve(centred.T @ centred + ridge, centred.T @ (one_hot - middle))
        logits = torch.from_numpy((_features(classifier, held_out, 1) - x.mean(axis=0)) @ weights + middle)
        found = score(logits, torch.from_numpy(held_out.labels), held_out.domains)
        expected.append((found.rank, penalty, weights.T))
    result = fit_probe(classifier, TrainingData(train, held_out, teacher_targets(train)), CONFIG)
    rank, _, weights = max(expected, key=lambda one: one[:2])
    np.testing.assert_allclose(classifier.student.projection.weight.detach().numpy(), weights, atol=1e-4)
    assert result.validation.rank == pytest.approx(rank)
    assert result.validation.accuracy > 1 / len(CLASSES)
    after = classifier.student.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_the_probe_reads_labels_alone_and_no_more_views_than_the_steps_look_at() -> None:
    train, held_out = coloured_views(8, seed=1), coloured_views(6, views=1, seed=2)
    answers = teacher_targets(train)
    lies = replace(answers, vectors=np.full_like(answers.vectors, np.nan))

    def weights(data: LabelledViews, *, targets: Any = None, steps: int = 50) -> list[float]:
        classifier = fresh_classifier(text=False)
        config = CONFIG.replace(align_steps=steps, distill_steps=steps, batch_size=1)
        fit_probe(classifier, TrainingData(data, held_out, targets), config)
        return classifier.student.projection.weight.flatten().tolist()

    assert weights(train, targets=lies) == weights(train)
    one_view = replace(train, pixels=np.asarray(train.pixels)[:, :1])
    assert weights(train, steps=2) == weights(train, steps=7) == weights(one_view) != weights(train)
    assert weights(train, steps=8) == weights(train), "two stages of eight steps of one view of two domains: all 32"
    more, fewer = (coloured_views(8, views=count, seed=1) for count in (6, 4))
    fewer = replace(fewer, pixels=np.asarray(more.pixels)[:, :4])
    assert weights(more, steps=50) == weights(fewer, steps=50), "the first four views, however many there are"


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    """Pictures whose class is their colour, which the frozen student tells apart and the vendor's digests do not."""
    rng = np.random.default_rng(0)
    for domain in ("art", "photo", "sketch"):
        for name, colour in COLOURS.items():
            (tmp_path / "data" / domain / name).mkdir(parents=True)
            for index in range(10):
                pixels = np.array(colour) + rng.integers(-40, 40, (10, 12, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / domain / name / f"{index}.png")
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "1")


def _names(report: dict[str, Any]) -> list[str]:
    return [row["name"] for row in report["rows"]]


def test_a_probe_that_is_better_on_source_validation_is_exported_and_is_what_predicts(
    vendor: FakeVendor, shell: ClientShell
) -> None:
    report = shell.distill("--probe", "--baseline", "linear-probe")
    assert _names(report)[-3:] == ["linear probe", METHOD, PROBE]
    method, probe = report["rows"][-2:]
    assert probe["source_validation"] > method["source_validation"]
    card, page = shell.read("student/student.json"), (shell.run_folder / "report.md").read_text()
    assert (report["exported"], card["method"], card["queries"]) == (PROBE, PROBE, {"images": 0, "texts": 0})
    figures = [f"{name} has {100 * row['source_validation']:.1f} %" for name, row in ((PROBE, probe), (METHOD, method))]
    assert f"**Exported: {PROBE}**. On source validation, {figures[0]} and {figures[1]}." in page
    remedy = f"the same run with the option probe off exports {METHOD}, and trains and buys nothing again"
    assert all(remedy in text for text in (page, (shell.run_folder / "report.html").read_text()))
    assert report["purchase"]["other_queries"] == vendor.billed_units, "the probe asks nothing, its rival did"

    student = load_file(shell.run_folder / "student" / "student.safetensors")
    pretrained = build_student(resolve_student("tiny"), outputs=1, seed=0).backbone.state_dict()
    assert all((student[f"backbone.{name}"] == value.numpy()).all() for name, value in pretrained.items())
    scores = json.loads(shell.run("evaluate", str(shell.run_folder), "--json").stdout)
    of_domain = {row["domain"]: row["accuracy"] for row in report["by_domain"]}
    assert {row["domain"]: row["student"] for row in scores} == of_domain
    assert of_domain["sketch"] == probe["target"]
    said = {row.path: row.predicted for row in read_predictions(shell.run_folder) if row.classifier == PROBE}
    predicted = shell.run("predict", str(shell.run_folder), str(shell.data / "sketch"), "--json").stdout.splitlines()
    found = {str(Path(row["path"]).relative_to(shell.data)): row["class"] for row in map(json.loads, predicted)}
    assert len(found) == 30
    assert found == said


def test_the_method_is_exported_in_the_probe_s_place_and_nothing_is_bought_or_trained_again(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.distill("--probe")["exported"] == PROBE
    billed = vendor.billed_units
    monkeypatch.setattr(loop, "_take_steps", lambda *_: pytest.fail("a step is taken"))
    assert shell.distill("--no-probe")["exported"] == METHOD
    assert vendor.billed_units == billed


@pytest.mark.parametrize("gain", [0.0, -0.1], ids=["level", "worse"])
def test_a_student_that_is_level_with_the_probe_is_exported(
    shell: ClientShell, monkeypatch: pytest.MonkeyPatch, gain: float
) -> None:
    reached = shell.distill()["rows"][-1]["source_validation"]

    def handicapped(*arguments: Any, **options: Any) -> TrainingResult:
        result = fit_probe(*arguments, **options)
        return replace(result, validation=replace(result.validation, accuracy=reached + gain))

    monkeypatch.setattr(method_training, "fit_probe", handicapped)
    report = shell.distill("--probe")
    assert _names(report) == ["zero-shot teacher", "chance", "majority class", PROBE, METHOD]
    assert (report["exported"], shell.read("student/student.json")["method"]) == (METHOD, METHOD)
    assert (
        f"**Exported: {METHOD}**. On source validation, {METHOD} has " in (shell.run_folder / "report.md").read_text()
    )
    assert "option probe off" not in (shell.run_folder / "report.md").read_text()


def test_a_run_that_is_killed_after_the_probe_ends_with_the_same_bits_and_buys_nothing(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vl2v_client.recipes.distill.score_classifier", die)
        shell.try_distill("--probe")
    bought = vendor.billed_units
    shell.distill("--probe")
    student = (shell.run_folder / "student" / "student.safetensors").read_bytes()
    shell.distill("--probe")
    assert (shell.run_folder / "student" / "student.safetensors").read_bytes() == student
    assert vendor.billed_units == bought
    assert _names(shell.distill())[-1] == METHOD, "without a probe, the run exports its method"


def test_the_probe_is_made_before_the_target_is_opened(shell: ClientShell, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[TrainingResult] = []
    fit: Callable[..., TrainingResult] = fit_probe
    monkeypatch.setattr(method_training, "fit_probe", lambda *a, **o: made.append(fit(*a, **o)) or made[-1])
    for path in (shell.data / "sketch").glob("*/*.png"):
        path.write_bytes(b"reading this file fails")
    failed = shell.try_distill("--probe")
    assert isinstance(failed.exception, DataError)
    assert "sketch" in str(failed.exception)
    assert len(made) == 1


@pytest.mark.parametrize("method", ["erm", "linear-probe"])
def test_a_method_of_labels_alone_has_no_probe_beside_it(shell: ClientShell, method: str) -> None:
    report = shell.distill("--probe", "--method", method)
    assert PROBE not in _names(report)
    assert report["probed"] is False


def test_a_sweep_compares_methods_and_exports_no_probe(shell: ClientShell) -> None:
    steps = ("--align-steps", "2", "--distill-steps", "2", "--batch-size", "2", "--evaluate-every", "2")
    out = ("--out", str(shell.folder / "sweep"), "--yes", "--device", "cpu", "--method", "vl2v-adip")
    done = shell.run("sweep", *steps, *out)
    assert done.exit_code == 0, done.output
    report = json.loads((shell.folder / "sweep" / "sketch" / "seed0" / "vl2v-adip" / "report.json").read_text())
    assert _names(report) == ["zero-shot teacher", "chance", "majority class", METHOD]


def test_chance_and_the_majority_class_are_those_of_the_split(shell: ClientShell) -> None:
    for path in (*shell.data.glob("art/dog/[4-9].png"), *shell.data.glob("photo/emu/[2-9].png")):
        path.unlink()
    for path in shell.data.glob("sketch/cat/[3-9].png"):
        path.unlink()
    report = shell.distill()
    chance, majority = report["rows"][1:3]
    assert (chance["source_validation"], chance["target"], chance["target_in"]) == (1 / 3, 1 / 3, 1 / 3)
    parts = split(open_dataset(shell.data), target_domain="sketch", seed=0)
    counts = Counter(sample.class_index for sample in parts.train)
    assert counts[0] > max(counts[1], counts[2])

    def cats(samples: Sequence[Sample], domain: str = "sketch") -> float:
        of_domain = [sample.class_index == 0 for sample in samples if sample.domain == domain]
        return sum(of_domain) / len(of_domain)

    art, photo = cats(parts.validation, "art"), cats(parts.validation, "photo")
    assert majority["source_validation"] == pytest.approx((art + photo) / 2)
    assert art != photo
    assert (majority["target"], majority["target_in"]) == (cats(parts.target), cats(parts.target_in))
    assert cats(parts.target) == 3 / 23 != cats(parts.target_in)
    assert majority["note"] == f"cat: art {100 * art:.1f} %, photo {100 * photo:.1f} %"
