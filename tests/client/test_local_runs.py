"""Runs whose teacher is on this machine: VL2V-SD, the online loop, and no vendor anywhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from support.client.client_shell import Result, invoke
from support.vendor.tiny_clip import CONFIG, write_tiny_clip
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import DataConfig, PurchaseConfig, RunConfig, StudentConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import silent
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.splits import split
from vl2v_client.data.view_pixels import canonical_pixels
from vl2v_client.data.views import View, drawn_view, views_for
from vl2v_client.evaluation.accuracy import log_probabilities, read_predictions
from vl2v_client.evaluation.image_predictions import FoundFile, classify_files
from vl2v_client.export.weights import load_bundle
from vl2v_client.local.origin import LocalModel
from vl2v_client.local.teacher import LocalTeacher
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.file_contents import read_files
from vl2v_client.recipes.distill import distill as run_distill
from vl2v_client.runs.local_source import LocalSource
from vl2v_client.runs.settings import settle
from vl2v_client.student.loss.methods import TrainingConfig, vl2v_adip
from vl2v_client.student.model.classifier import TextHead, new_classifier, student_input
from vl2v_client.student.model.spec import resolve_student
from vl2v_client.student.train.feeds import open_feed
from vl2v_client.student.train.training_data import BatchSource, OnlineViews, TrainingData, labelled_views
from vl2v_client.student.train.training_run import TrainingRun
from vl2v_client.teacher.targets import ImageTargets

DOMAINS, CLASSES, IMAGES = ("art", "photo", "sketch"), ("cat", "dog"), 5
STEPS = ("--align-steps", "3", "--distill-steps", "4", "--batch-size", "2", "--evaluate-every", "2")
QUICK = (*STEPS, "--device", "cpu", "--no-probe")
LABELS_ALONE = ["chance", "majority class"]
TRAINED = 2 * 2 * 4  # source domains x classes x images without the hold-out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    for domain in DOMAINS:
        for name in CLASSES:
            folder = tmp_path / "data" / domain / name
            folder.mkdir(parents=True)
            for index in range(IMAGES):
                Image.fromarray(rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path) -> tuple[str, str]:
    spec = write_tiny_clip(tmp_path)
    return str(spec.config_file), str(spec.checkpoint_file)


def run(tmp_path: Path, *words: str) -> Result:
    nobody = {"VL2V_VENDOR_URL": "http://127.0.0.1:9", "VL2V_CACHE": str(tmp_path / "client.db")}
    return invoke(list(words), nobody)


def distil(tmp_path: Path, model: tuple[str, str], out: str, *words: str) -> Result:
    local = ("--local-teacher", model[0], "--local-weights", model[1])
    common = ("--data", str(tmp_path / "data"), "--target-domain", "sketch", "--student", "tiny")
    views = () if "--online" in words else ("--views", "2")
    return run(tmp_path, "distill", *common, *views, *local, "--out", str(tmp_path / out), *QUICK, *words)


def read(folder: Path, name: str = "report.json") -> dict[str, Any]:
    return dict(json.loads((folder / name).read_text()))


def test_copies_of_an_image_count_once_and_answers_that_were_cut_short_are_made_again(
    tmp_path: Path, data: Path, model: tuple[str, str]
) -> None:
    for copy in range(3):
        shutil.copy(data / "art" / "cat" / "0.png", data / "art" / "cat" / f"copy{copy}.png")
    done = distil(tmp_path, model, "run", "--train-views", "2")
    assert done.exit_code == 0, done.output
    (answers,) = (tmp_path / "run" / "answers").glob("local-teacher-*.npy")
    taught = np.load(answers)
    train = split(open_dataset(data), target_domain="sketch", seed=0).train
    contents = {sample.path.read_bytes() for sample in train}
    assert len(contents) < len(train) == len(taught) // 2
    assert read(tmp_path / "run")["local"]["images"] == 2 * len(contents)
    (student,) = (tmp_path / "run" / "student").glob("*.safetensors")
    before = student.read_bytes()
    for cut in (0, 3):
        answers.write_bytes(answers.read_bytes()[:cut])
        again = distil(tmp_path, model, "run", "--train-views", "2")
        assert again.exit_code == 0, again.output
        np.testing.assert_array_equal(np.load(answers), taught)
    assert student.read_bytes() == before


def test_a_local_run_s_teacher_is_not_bought(tmp_path: Path, data: Path, model: tuple[str, str]) -> None:
    assert distil(tmp_path, model, "run", "--train-views", "2").exit_code == 0
    before = read(tmp_path / "run")
    refused = run(tmp_path, "evaluate", str(tmp_path / "run"), "--teacher", "--yes")
    assert isinstance(refused.exception, UsageError)
    assert "the local teacher's row already" in str(refused.exception)
    assert read(tmp_path / "run") == before


def test_vl2v_sd_trains_the_teacher_s_own_tower_and_asks_no_vendor(
    tmp_path: Path, data: Path, model: tuple[str, str]
) -> None:
    words = ("--method", "vl2v-sd", "--baseline", "vl2v-adip", "--learning-rate", "1e-3", "--probe")  # a tower has none
    done = distil(tmp_path, model, "run", *words)
    assert done.exit_code == 0, done.output
    report, card = read(tmp_path / "run"), read(tmp_path / "run", "student/student.json")
    assert [row["name"] for row in report["rows"]] == ["zero-shot teacher", *LABELS_ALONE, "VL2V-ADiP", "VL2V-SD"]
    assert None not in (report["rows"][0]["target"], report["rows"][0]["source_validation"])
    said = [each for each in read_predictions(tmp_path / "run") if each.classifier == "zero-shot teacher"]
    assert sum(each.label == each.predicted for each in said) == report["rows"][0]["target"] * len(said)
    assert len(said) == len(CLASSES) * IMAGES
    assert (report["purchase"], card["queries"], card["teacher"]["ledger_id"]) == (None, {}, "local")
    assert report["local"] == {"images": TRAINED * 2, "texts": 2, "online": False}
    assert "The teacher is local: nothing was bought." in (tmp_path / "run" / "report.md").read_text()
    assert card["student"]["open_clip"]["embed_dim"] == CONFIG["embed_dim"]

    teacher = LocalTeacher(LocalModel(model[0], Path(model[1])))
    student = load_bundle(tmp_path / "run" / "student").classifier.student
    tower = teacher.image_tower()
    for name, module in (("backbone", tower.backbone), ("projection", tower.projection)):
        trained = getattr(student, name).state_dict()
        assert all(not torch.equal(trained[key], first) for key, first in module.state_dict().items()), name

    predicted = run(tmp_path, "predict", str(tmp_path / "run"), str(data / "sketch" / "cat"))
    assert len(predicted.stdout.splitlines()) == 1 + IMAGES
    again = distil(tmp_path, model, "run", *words)
    assert again.stdout == done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("--method", "vl2v-sd", "--baseline", "erm", "--baseline", "vl2v-adip"),
        ("--train-views", "3", "--probe"),
        ("--online", "--probe"),
    ],
)
def test_every_student_sees_views_rendered_at_its_own_size(
    tmp_path: Path,
    data: Path,
    model: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("pixels were resized")

    monkeypatch.setattr("vl2v_client.student.model.classifier.functional.interpolate", refuse)
    done = distil(tmp_path, model, "run", *words)
    assert done.exit_code == 0, done.output
    bundle = load_bundle(tmp_path / "run" / "student")
    size = bundle.card.student.input.size
    assert bundle.card.view_size == size == (32 if "vl2v-sd" in words else 64)
    image = data / "sketch" / "cat" / "0.png"
    (predicted,) = classify_files(bundle, [FoundFile(str(image))])
    assert predicted.probabilities is not None
    logits = bundle.classifier.logits(render_view(load_rgb(image), View(), size)[None])
    assert (predicted.probabilities == np.exp(log_probabilities(logits, bundle.card.temperature))).all()


def test_online_runs_are_identical_and_count_what_they_would_have_cost(
    tmp_path: Path, data: Path, model: tuple[str, str]
) -> None:
    folders = [tmp_path / name for name in ("one", "two", "stored", "text")]
    choices = (("--online",), ("--online",), (), ("--online", "--image-weight", "0"))
    for folder, words in zip(folders, choices, strict=True):
        done = distil(tmp_path, model, folder.name, "--baseline", "text-cosine", *words)
        assert done.exit_code == 0, done.output
    one, two, stored, text = ((folder / "student" / "student.safetensors").read_bytes() for folder in folders)
    assert one == two
    assert stored != one != text
    assert read(folders[3])["local"]["images"] == 0
    assert read(folders[0])["local"] == {"images": (3 + 4) * 2 * 2, "texts": 2, "online": True}
    page = (folders[0] / "report.md").read_text()
    assert "every view of every step, drawn anew: 28 views and 2 texts, which a vendor would have billed as 30" in page
    assert "| views per image | fresh at every step, styles |" in page


class Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [("align", 2), ("distill", 3)])
def test_a_killed_online_run_goes_on_to_the_same_weights(
    tmp_path: Path, data: Path, model: tuple[str, str], kill_at: tuple[str, int]
) -> None:
    settings = settle(
        RunConfig(
            data=DataConfig(root=data, target_domain="sketch"),
            purchase=PurchaseConfig(local_teacher=model[0], view_recipe="standard", online=True),
            student=StudentConfig(name="tiny"),
            training=TrainingConfig(
                align_steps=3,
                distill_steps=4,
                batch_size=2,
                evaluate_every=2,
                checkpoint_every=1,
                device="cpu",
                mixup=0.5,
            ),
        )
    )

    def killer(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        if (phase, done) == kill_at:
            raise Killed

    with EmbeddingCache(tmp_path / "client.db") as cache:
        source = LocalSource(LocalTeacher(LocalModel(model[0], Path(model[1]))), cache)
        run_distill(settings, source, tmp_path / "calm", progress=silent)
        with pytest.raises(Killed):
            run_distill(settings, source, tmp_path / "stormy", progress=killer)
        run_distill(settings, source, tmp_path / "stormy", progress=silent)
    calm, stormy = ((tmp_path / name / "student" / "student.safetensors").read_bytes() for name in ("calm", "stormy"))
    assert calm == stormy


def test_a_fresh_view_is_that_of_its_number(tmp_path: Path, data: Path, model: tuple[str, str]) -> None:
    teacher = LocalTeacher(LocalModel(model[0], Path(model[1])))
    samples = open_dataset(data).samples
    with EmbeddingCache(tmp_path / "client.db") as cache:
        contents = read_files((sample.path for sample in samples), cache)
    choice = QueryChoice(data, recipe="styles", seed=3)
    online = OnlineViews(samples, [contents[sample.path] for sample in samples], choice, teacher)
    rows, numbers = np.array([0, 7, 0, 0]), np.array([5, 2**61 + 1, 5, 6])
    drawn, said = online.draw(rows, numbers, 32, ask=False)
    assert (drawn.shape, said) == ((4, 32, 32, 3), None)
    np.testing.assert_array_equal(drawn[0], drawn[2])
    assert (drawn[0] != drawn[3]).any()
    np.testing.assert_array_equal(online.draw(rows[::-1], numbers[::-1], 32, ask=False)[0], drawn[::-1])
    content = contents[samples[0].path]
    size = (content.width, content.height)
    stored = views_for(content.file_sha, size, 8, 3, "styles")
    image = load_rgb(samples[0].path)
    np.testing.assert_array_equal(drawn[0], render_view(image, stored[6], 32))  # fresh numbers begin at 0
    assert [drawn_view(content.file_sha, size, number, 3, "styles") for number in range(1, 8)] == stored[1:]


def test_an_online_step_learns_what_the_teacher_says_of_the_views_it_drew(
    tmp_path: Path, data: Path, model: tuple[str, str]
) -> None:
    teacher = LocalTeacher(LocalModel(model[0], Path(model[1])))
    dataset = open_dataset(data)
    samples = dataset.samples
    with EmbeddingCache(tmp_path / "client.db") as cache:
        contents = read_files((sample.path for sample in samples), cache)
    online = OnlineViews(samples, [contents[sample.path] for sample in samples], QueryChoice(data), teacher)
    nothing = ImageTargets.of_bought(np.zeros((len(samples), 1, 16), np.float32), np.ones((len(samples), 1), np.bool_))
    config = TrainingConfig(batch_size=2, device="cpu")
    head = TextHead(teacher.encode_texts(CLASSES), 1.0)
    method = vl2v_adip(config)
    classifier = new_classifier(resolve_student("tiny"), head, class_count=2, seed=0)
    own, asked = classifier.input.size, teacher.facts.image_size
    assert own != asked
    views = labelled_views(canonical_pixels(samples, own), samples)
    run = TrainingRun(classifier, TrainingData(views, views, nothing, fresh=online), config)
    for stage in method.stages:
        loaded, later = (open_feed(run, stage).load(step) for step in (0, 1))
        assert not np.array_equal(loaded.views, later.views)
        drawn, said = online.draw(loaded.rows, loaded.views, own, ask=True)
        seen, _ = online.draw(loaded.rows, loaded.views, asked, ask=False)
        assert loaded.answers is not None
        np.testing.assert_array_equal(loaded.answers, said)
        np.testing.assert_array_equal(loaded.answers, teacher.encode_images(seen))
        torch.testing.assert_close(loaded.inputs, student_input(drawn, classifier.input, torch.device("cpu")))
        batch = BatchSource(run.data, head, 0.5).batch(torch.zeros(6, 16), loaded.rows, loaded.views, loaded.answers)
        np.testing.assert_array_equal(batch.image_targets, loaded.answers)
        assert batch.image_weights.tolist() == [0.5] * 6


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--online",), "needs --local-teacher"),
        (("--online", "--views", "4"), "leave --views out"),
        (("--local-weights", "x.safetensors"), "belongs to a local teacher: name --local-teacher"),
        (("--method", "vl2v-sd"), "give --local-teacher"),
    ],
)
def test_what_needs_a_local_teacher_says_so(tmp_path: Path, data: Path, words: tuple[str, ...], complaint: str) -> None:
    refused = run(tmp_path, "distill", "--data", str(data), "--out", str(tmp_path / "run"), *words)
    assert isinstance(refused.exception, UsageError), refused.output
    assert complaint in str(refused.exception)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--select", "random", "--max-queries", "3"), "answers for free"),
        (("--impute", "ridge"), "answers for free"),
        (("--online", "--align", "ridge"), "--align ridge is fitted to stored views, and --online draws fresh ones"),
        (("--max-cost", "0.01", "--partial"), "answers for free: leave --max-cost, --partial out"),
        (
            ("--method", "vl2v-sd", "--student", "resnet50.tv_in1k", "--student-size", "48"),
            "leave --student, --student-size",
        ),
        (("--local-precision", "fp8"), '"fp8" for --local-precision'),
    ],
)
def test_what_a_local_teacher_makes_pointless_is_refused(
    tmp_path: Path, data: Path, model: tuple[str, str], words: tuple[str, ...], complaint: str
) -> None:
    refused = distil(tmp_path, model, "run", *words)
    assert isinstance(refused.exception, UsageError), refused.output
    assert complaint in str(refused.exception)
