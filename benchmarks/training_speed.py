"""How much faster training is when the teacher's answers are bought once and the frozen backbone speaks once.

    python benchmarks/training_speed.py [--batch 8] [--rounds 7]

*Align* against the published form, in which the backbone runs forward and backward at every step though it is frozen:
the published form is timed over ten steps and scaled; ours counts the features of all views, those of the hold-out
too, and every step. The size is that of PACS with one target: 6,000 training images of 4 views (10 in `default`), 1,500
held out, 5,001 steps of 32 views per domain; `--batch` views are timed where the student is large, and the published
form's time scaled to 32. *Distill* against the online loop, which draws new views and asks the teacher at every step;
both take turns in one process. Random weights and pixels: only time is measured, but for the tiny student, where both
forms of align must also end at the same loss.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from result import Goal, write_result
from torch import Tensor

from vl2v_client.core.values import EmbeddingMatrix
from vl2v_client.data.rendering import render_view
from vl2v_client.data.views import drawn_view
from vl2v_client.student.loss.methods import Stage, TrainingConfig, vl2v_adip
from vl2v_client.student.loss.objective import image_and_text
from vl2v_client.student.model.card import InputFormat
from vl2v_client.student.model.classifier import StudentClassifier, TextHead, new_classifier, student_input
from vl2v_client.student.model.network import build_student
from vl2v_client.student.model.spec import StudentSpec, resolve_student
from vl2v_client.student.train.devices import resolve_device
from vl2v_client.student.train.feeds import open_feed
from vl2v_client.student.train.training_data import BatchSource, LabelledViews, TrainingData
from vl2v_client.student.train.training_run import LoadedStep, TrainingRun
from vl2v_client.teacher.targets import ImageTargets
from vl2v_client.teacher.text_classifier import unit_rows

DOMAINS, CLASSES, WIDTH = 3, 7, 512
ALIGN_IMAGES, HELD_OUT, ALIGN_VIEWS, ALIGN_STEPS, ALIGN_BATCH = 6_000, 1_500, 4, 5_001, 32
DEFAULT_VIEWS = 10
PUBLISHED_STEPS_TIMED, OWN_STEPS_TIMED = 10, 200
SAME_LOSS_STEPS = 60
HALF = (0.5, 0.5, 0.5)
TEACHER = StudentSpec("vit_base_patch16_224", InputFormat(224, HALF, HALF, "bicubic"), 768)
STUDENTS = {
    "tiny": None,
    "vit_small_patch16_224": StudentSpec("vit_small_patch16_224", InputFormat(224, HALF, HALF, "bicubic"), 384),
    "vit_base_patch16_224": TEACHER,
}
LEAST_ALIGN, LEAST_DISTILL = 50.0, {"vit_base_patch16_224": 1.25, "vit_small_patch16_224": 2.0}


class RandomTeacher:
    """A ViT-B/16 that draws, renders and answers at every step, as the online loop does."""

    of = "random"

    def __init__(self, images: int, size: int, device: torch.device) -> None:
        pixels = np.random.default_rng(1).integers(0, 256, (images, 256, 256, 3), dtype=np.uint8)
        self._images = [Image.fromarray(one) for one in pixels]
        self._size = size
        self._device = device
        self._network = build_student(TEACHER, outputs=WIDTH, seed=1).to(device).eval()

    def draw(
        self, rows: NDArray[np.int64], views: NDArray[np.int64], size: int, *, ask: bool
    ) -> tuple[NDArray[np.uint8], EmbeddingMatrix | None]:
        if size != self._size:
            raise ValueError(f"teacher and students of this benchmark see {self._size} pixels")
        pixels = np.stack([self._view(int(row), int(view)) for row, view in zip(rows, views, strict=True)])
        return pixels, self._ask(pixels) if ask else None

    def _view(self, row: int, number: int) -> NDArray[np.uint8]:
        image = self._images[row]
        return render_view(image, drawn_view(str(row), image.size, 1 + number, seed=0), self._size)

    @torch.no_grad()
    def _ask(self, pixels: NDArray[np.uint8]) -> EmbeddingMatrix:
        answers: NDArray[np.float32] = self._network(student_input(pixels, TEACHER.input, self._device)).cpu().numpy()
        return unit_rows(answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--batch", type=int, default=8, help="views per domain and step; the published one is 32")
    parser.add_argument("--rounds", type=int, default=7, help="turns of a distill step and an online step")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    rows: list[dict[str, object]] = []
    goals: list[Goal] = []
    for name in arguments.students:
        ratio = measure_align(name, arguments.batch, device, rows)
        goals.append(Goal(f"align, {name}: published form / ours", ratio, f">= {LEAST_ALIGN:g}", ratio >= LEAST_ALIGN))
        if name == "tiny":
            difference = difference_of_losses(arguments.batch, device)
            goals.append(Goal("final align loss, published form - ours", difference, "< 1e-5", difference < 1e-5))
        else:
            ratio, least = measure_distill(name, arguments.batch, arguments.rounds, device, rows), LEAST_DISTILL[name]
            goals.append(Goal(f"distill step, {name}: online / ours", ratio, f">= {least:g}", ratio >= least))
    write_result("training_speed", rows, goals, out=arguments.out)


def measure_align(name: str, batch: int, device: torch.device, rows: list[dict[str, object]]) -> float:
    """Seconds of a whole align stage in both forms; features are timed on a part of the views where they are slow."""
    batch = ALIGN_BATCH if name == "tiny" else batch
    run, stage = _run(name, ALIGN_IMAGES // DOMAINS if name == "tiny" else 16, batch, device, stage=0)
    published = _published_step(run, stage)
    published(0)  # the first allocates
    of_published = _seconds(lambda: [published(step) for step in range(1, 1 + PUBLISHED_STEPS_TIMED)], device)
    made = []
    of_features = _seconds(lambda: made.append(open_feed(run, stage)), device)
    features_timed = len(run.data.train) * run.data.train.view_count + len(run.data.validation)
    own = _own_step(run, stage, made[0].load, made[0].outputs)
    of_steps = _seconds(lambda: [own(step) for step in range(OWN_STEPS_TIMED)], device)
    whole = of_published / PUBLISHED_STEPS_TIMED * ALIGN_STEPS * ALIGN_BATCH / batch
    per_view, steps = of_features / features_timed, of_steps / OWN_STEPS_TIMED * ALIGN_STEPS
    facts: dict[str, object] = {"stage": "align", "student": name, "views per step": ALIGN_BATCH * DOMAINS}
    rows.append(
        facts
        | {
            "form": f"published, scaled from {PUBLISHED_STEPS_TIMED} steps of {batch * DOMAINS} views",
            "steps": ALIGN_STEPS,
            "seconds": round(whole, 1),
        }
    )
    ratios = {}
    for count in (ALIGN_VIEWS, DEFAULT_VIEWS):
        views = ALIGN_IMAGES * count + HELD_OUT
        own_whole = per_view * views + steps
        ratios[count] = round(whole / own_whole, 1)
        form = f"ours: {count} views of each image, features {per_view * views:.1f} s (scaled to {views:,} views "
        form += f"from {features_timed:,}), steps {steps:.1f} s, {ratios[count]} times as fast"
        rows.append(facts | {"form": form, "steps": ALIGN_STEPS, "seconds": round(own_whole, 1)})
    return ratios[ALIGN_VIEWS]


def measure_distill(name: str, batch: int, rounds: int, device: torch.device, rows: list[dict[str, object]]) -> float:
    """Median seconds of a distill step on bought targets and of an online one, in turn."""
    bought, stage = _run(name, 16, batch, device, stage=1)
    teacher = RandomTeacher(len(bought.data.train), TEACHER.input.size, device)
    online, _ = _run(name, 16, batch, device, stage=1, fresh=teacher)
    seconds: dict[str, list[float]] = {"bought": [], "online": []}
    steps = {}
    for form, run in (("bought", bought), ("online", online)):
        feed = open_feed(run, stage)
        steps[form] = _own_step(run, stage, feed.load, feed.outputs)
        steps[form](0)
    for number in range(1, rounds + 1):
        for form, step in steps.items():
            seconds[form].append(_seconds(lambda step=step, number=number: step(number), device))  # type: ignore[misc]
    medians = {form: statistics.median(of_form) for form, of_form in seconds.items()}
    for form, median in medians.items():
        facts: dict[str, object] = {"stage": "distill", "student": name, "views per step": batch * DOMAINS}
        rows.append(facts | {"form": form, "steps": 1, "seconds": round(median, 3)})
    return round(medians["online"] / medians["bought"], 2)


def difference_of_losses(batch: int, device: torch.device) -> float:
    """How far the two forms of align are apart after the same steps of the tiny student."""
    losses = []
    for form in ("published", "ours"):
        run, stage = _run("tiny", 40, batch, device, stage=0)
        if form == "published":
            step = _published_step(run, stage)
        else:
            feed = open_feed(run, stage)
            step = _own_step(run, stage, feed.load, feed.outputs)
        losses.append([step(number) for number in range(SAME_LOSS_STEPS)][-1])
    return abs(losses[0] - losses[1])


def _published_step(run: TrainingRun, stage: Stage) -> Callable[[int], float]:
    """Forward and backward through everything; the optimizer holds the projection alone, as published."""
    student = run.classifier.student
    for parameter in student.parameters():
        parameter.requires_grad_(True)

    def outputs(loaded: LoadedStep) -> Tensor:
        return run.forward(student, loaded.inputs)

    def gather(rows: NDArray[np.int64], views: NDArray[np.int64]) -> Tensor:
        return student_input(run.data.train.pixels[rows, views], run.classifier.input, run.classifier.device)

    return _own_step(run, stage, lambda step: run.load(stage, step, gather), outputs)


def _own_step(
    run: TrainingRun, stage: Stage, load: Callable[[int], LoadedStep], outputs: Callable[[LoadedStep], Tensor]
) -> Callable[[int], float]:
    student = run.classifier.student
    trained = [value for name, value in student.named_parameters() if name.partition(".")[0] in stage.trains]
    optimizer = torch.optim.Adam(trained, lr=stage.learning_rate)
    batches = BatchSource(run.data, run.classifier.head, stage.share_of_image(run.config))

    def step(number: int) -> float:
        loaded = load(number)
        loss = image_and_text(batches.batch(outputs(loaded), loaded.rows, loaded.views, loaded.answers))["loss"]
        student.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return float(loss.detach())

    return step


def _run(
    name: str, images: int, batch: int, device: torch.device, *, stage: int, fresh: RandomTeacher | None = None
) -> tuple[TrainingRun, Stage]:
    """A run on random pixels, `images` per domain, with the parts frozen that the stage freezes."""
    spec = STUDENTS[name] or resolve_student(name)
    views = ALIGN_VIEWS if name == "tiny" else 1
    size = 64 if name == "tiny" else spec.input.size
    config = TrainingConfig(batch_size=batch, device=str(device), align_learning_rate=1e-3)
    method = vl2v_adip(config)
    head = TextHead(unit_rows(np.random.default_rng(2).normal(size=(CLASSES, WIDTH))), 100.0)
    classifier: StudentClassifier = new_classifier(spec, head, class_count=CLASSES, seed=0)
    classifier.student.to(device)
    for part, parameter in classifier.student.named_parameters():
        parameter.requires_grad_(part.partition(".")[0] in method.stages[stage].trains)
    random = np.random.default_rng(3)
    train = _random_views(random, images, views, size)
    targets = unit_rows(random.normal(size=(len(train) * views, WIDTH))).reshape(len(train), views, WIDTH)
    bought = ImageTargets.of_bought(targets, np.ones((len(train), views), dtype=np.bool_))
    data = TrainingData(train, _random_views(random, 1, 1, size), bought)
    return TrainingRun(classifier, replace(data, fresh=fresh), config), method.stages[stage]


def _random_views(random: np.random.Generator, images: int, views: int, size: int) -> LabelledViews:
    pixels = random.integers(0, 256, (images * DOMAINS, views, size, size, 3), dtype=np.uint8)
    labels = np.arange(len(pixels), dtype=np.int64) % CLASSES
    return LabelledViews(pixels, labels, tuple(f"domain{domain}" for domain in range(DOMAINS) for _ in range(images)))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


if __name__ == "__main__":
    main()
