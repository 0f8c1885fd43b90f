"""A run whose teacher is on this machine: nothing is bought, and the teacher may see every view of every step."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vl2v_client.cache.contents import FileContent
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import CacheError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import EmbeddingMatrix, RGBImage, Sample
from vl2v_client.data.splits import Split
from vl2v_client.data.views import RENDERER_VERSION, drawn_view, load_rgb, render_view
from vl2v_client.evaluation.accuracy import evaluate
from vl2v_client.evaluation.zero_shot import zero_shot_logits
from vl2v_client.export.cost import LocalAnswers
from vl2v_client.export.report import ReportRow
from vl2v_client.local.teacher import LocalTeacher
from vl2v_client.planning.contents import read_files, view_keys
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.recipes.purchase import PlannedRun
from vl2v_client.recipes.queries import QueryChoice, collect_queries
from vl2v_client.recipes.readings import billable_image_keys, billable_text_keys
from vl2v_client.recipes.run_folder import RunFolder
from vl2v_client.recipes.scoring import ZERO_SHOT, zero_shot_row
from vl2v_client.recipes.settings import RunSettings
from vl2v_client.recipes.targets import Vectors
from vl2v_client.recipes.training import RunData, load_run_data
from vl2v_client.student.fresh import FreshViews
from vl2v_client.student.methods import stage_asks_about_images
from vl2v_client.student.samples import LabelledViews
from vl2v_client.student.spec import InputFormat, StudentSpec
from vl2v_client.student.training import TrainingResult
from vl2v_contract.canonical import sha256_hex


@dataclass(frozen=True)
class LocalSource:
    """Where a local run's targets come from.

    Attributes:
        teacher: that answers.
        cache: whose memo of file contents is used; no embedding is read from it or kept in it.
    """

    teacher: LocalTeacher
    cache: EmbeddingCache


def tower_spec(teacher: LocalTeacher) -> StudentSpec:
    """The teacher's image tower as a student, the one of VL2V-SD.

    Raises:
        UsageError: the tower does not end in a linear projection.
    """
    facts = teacher.facts
    return StudentSpec(
        architecture=f"image tower of {facts.id}",
        input=InputFormat(facts.image_size, teacher.mean, teacher.std),
        features=teacher.image_tower().projection.in_features,
        weights_sha256=facts.weights_sha,
        tower=teacher.tower_config,
    )


def plan_local(choice: QueryChoice, source: LocalSource, *, progress: Progress = silent) -> PlannedRun:
    """What the local teacher will be asked, as a plan without a price.

    Raises:
        DataError: the data set cannot be used.
    """
    queries, facts = collect_queries(choice, source.cache, progress=progress), source.teacher.facts
    plan = QueryPlan(
        teacher=facts,
        image_keys=tuple(key.hex() for key in view_keys(queries.images, source.cache, size=facts.image_size)),
        text_keys=tuple(f"text {query.text}" for query in queries.texts),
        missing=(),
        image_files=len({query.sample.path for query in queries.images}),
        cached=0,
        seconds=None,
    )
    return PlannedRun(queries, plan)


def load_local_data(
    settings: RunSettings, planned: PlannedRun, source: LocalSource, folder: RunFolder, *, progress: Progress
) -> RunData:
    """The training images' rendered views with the local teacher's answers, and the hold-out.

    Raises:
        CacheError: the disk cannot hold the rendered views or the answers.
        DataError: an image is broken, or a text is too long for the teacher.
    """
    queries = planned.queries

    def fetch(train: LabelledViews) -> Vectors:
        texts = source.teacher.encode_texts([query.text for query in queries.texts])
        images = _image_answers(source.teacher, train, queries.asked_views, folder, progress)
        # as halves, as a cache keeps what is bought
        named = zip((*planned.plan.text_keys, *planned.plan.image_keys), (*texts, *images), strict=True)
        return {key: vector.astype(np.float16) for key, vector in named}

    data = load_run_data(settings, planned, fetch, folder, allow_missing=False, progress=progress)
    fresh = _online_views(settings, queries.split.train, source, progress) if settings.online else None
    return replace(data, training=replace(data.training, fresh=fresh), tower=source.teacher.image_tower)


def local_teacher_row(source: LocalSource, data: RunData, target: LabelledViews | None, split: Split) -> ReportRow:
    """The teacher's own row: asking it about the hold-out and, once all is trained, the target costs nothing."""
    validation, facts = data.training.validation, source.teacher.facts

    def logits(views: LabelledViews) -> NDArray[np.float32]:
        vectors = source.teacher.encode_images(views.pixels[:, 0])
        scale, bias = facts.logit_scale, facts.logit_bias
        return zero_shot_logits(vectors, data.text_classifier, logit_scale=scale, logit_bias=bias)

    row = ReportRow(ZERO_SHOT, None)
    if target is not None:
        row = zero_shot_row(logits(target), target.labels, target_in=len(split.target_in))
    seen = evaluate(logits(validation), validation.labels, validation.domains)
    return replace(row, source_validation=seen.domain_mean, note="local")


def local_answers(settings: RunSettings, planned: PlannedRun, exported: TrainingResult) -> LocalAnswers:
    """How much the exported student asked; online, each view of each step counts."""
    method, config = exported.method, settings.training
    texts = len(set(billable_text_keys(method, planned)))
    if not settings.online:
        return LocalAnswers(len(billable_image_keys(method, config, planned)), texts, online=False)
    taken = zip(method.stages, exported.stages, strict=True)
    steps = sum(result.steps for stage, result in taken if stage_asks_about_images(stage, config))
    return LocalAnswers(steps * config.batch_size * len(planned.queries.split.source_domains), texts, online=True)


@dataclass(frozen=True)
class OnlineViews:
    """`FreshViews` of a run: each a function of its number, the image's content and the run's seed and recipe.

    Attributes:
        samples: the training images, by row.
        contents: of their files.
        choice: seed and recipe of the views.
        teacher: whom they are shown.
    """

    samples: Sequence[Sample]
    contents: Sequence[FileContent]
    choice: QueryChoice
    teacher: LocalTeacher

    @property
    def of(self) -> str:
        """Names all that decides pixels and answers."""
        facts = self.teacher.facts
        named = [RENDERER_VERSION, self.choice.seed, self.choice.recipe, facts.image_size, facts.weights_sha]
        named += [facts.precision, facts.preprocessing_id, *(content.file_sha for content in self.contents)]
        return sha256_hex(json.dumps(named).encode())

    def render(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The views of those numbers of the images in those rows, `[B, S, S, 3]`, on every core."""
        with ThreadPoolExecutor() as pool:  # Pillow releases the interpreter lock
            return np.stack(list(pool.map(self._render, rows.tolist(), views.tolist())))

    def ask(self, pixels: NDArray[np.uint8]) -> EmbeddingMatrix:
        """What the teacher says of them, `[B, D]`."""
        return self.teacher.encode_images(pixels)

    def _render(self, row: int, number: int) -> RGBImage:
        content, choice = self.contents[row], self.choice
        view = drawn_view(content.file_sha, (content.width, content.height), number + 1, choice.seed, choice.recipe)
        return render_view(load_rgb(self.samples[row].path), view, self.teacher.facts.image_size)


def _online_views(
    settings: RunSettings, train: Sequence[Sample], source: LocalSource, progress: Progress
) -> FreshViews:
    contents = read_files((sample.path for sample in train), source.cache, progress=progress)
    return OnlineViews(train, [contents[sample.path] for sample in train], settings.choice, source.teacher)


def _image_answers(
    teacher: LocalTeacher, train: LabelledViews, asked: int, folder: RunFolder, progress: Progress
) -> NDArray[np.float32]:
    """The answers `[N * A, D]` on the first `asked` views, kept beside the rendered views."""
    facts = teacher.facts
    name = sha256_hex(json.dumps([train.of, list(range(asked)), facts.weights_sha, facts.precision]).encode())[:16]
    path = folder.renders("train").with_name(f"local-teacher-{name}.npy")
    with suppress(OSError, ValueError, EOFError):  # none, or cut short by a power failure: then they are made again
        kept: NDArray[np.float32] = np.load(path)
        return kept
    answers = teacher.encode_images(train.pixels[:, :asked].reshape(-1, *train.pixels.shape[2:]), progress=progress)
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, answers)
        partial.replace(path)
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}): make room, then run again") from error
    return answers
