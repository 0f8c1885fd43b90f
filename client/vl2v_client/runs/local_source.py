"""A teacher on this machine as a source of answers: nothing is bought, and it may see every view of every step."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from secrets import token_hex

import numpy as np
from numpy.typing import NDArray

from vl2v_client.cache.feature_store import FeatureFolder
from vl2v_client.cache.memo import RunCache, SessionCache
from vl2v_client.config.run import PurchaseConfig
from vl2v_client.core.errors import CacheError, DataError, UsageError
from vl2v_client.core.progress import Progress
from vl2v_client.data.folder import DomainDataset
from vl2v_client.data.view_pixels import ViewPixels, ViewSequence
from vl2v_client.evaluation.accuracy import Choices, choose, evaluate
from vl2v_client.local.origin import LocalModel
from vl2v_client.local.teacher import BATCH_SIZE, LocalTeacher
from vl2v_client.planning.choice import QueryChoice, collect_queries
from vl2v_client.planning.file_contents import read_files
from vl2v_client.planning.queries import view_keys
from vl2v_client.planning.query_plan import PlannedRun, QueryPlan
from vl2v_client.reports.pages import Bill, LocalAnswers
from vl2v_client.reports.report import ZERO_SHOT, ReportRow
from vl2v_client.runs.folder_lock import locked
from vl2v_client.runs.method_training import RunData, load_run_data
from vl2v_client.runs.reporting import zero_shot_row
from vl2v_client.runs.run_folder import FEATURES_FOLDER, RunFolder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.source import Announce, Source, billable_keys
from vl2v_client.student.loss.methods import stage_asks_about_images
from vl2v_client.student.model.card import InputFormat, StudentEntry, read_entry
from vl2v_client.student.model.spec import StudentSpec
from vl2v_client.student.train.devices import resolve_device
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.student.train.training_data import LabelledViews, OnlineViews
from vl2v_client.teacher.stored_vectors import StoredFetch, VectorsByKey
from vl2v_client.teacher.text_classifier import zero_shot_logits
from vl2v_contract.identity import sha256_hex

_PAID_TERMS = ("model", "max_queries", "max_cost", "partial", "skip_failed")
"""Options of a purchase that mean nothing to a teacher who sells nothing."""


def load_local_teacher(purchase: PurchaseConfig, device: str) -> LocalTeacher:
    """Load the local teacher that a configuration names, on a device as in `student.train.devices.resolve_device`.

    Raises:
        UsageError: There is no such model, or terms of a purchase stand beside it.
        DataError: The checkpoint cannot be read.
    """
    named = [term for term in _PAID_TERMS if term in purchase.model_fields_set]
    if named:
        options = ", ".join(f"purchase.{term}" for term in named)
        raise UsageError(f"a local teacher answers for free: leave {options} out")
    assert purchase.local_teacher is not None, "asked for by name"
    place = str(resolve_device(device))
    return LocalTeacher(LocalModel(purchase.local_teacher, purchase.local_weights, place, purchase.local_precision))


@dataclass(frozen=True)
class LocalSource(Source):
    """Asks a local teacher.

    Attributes:
        teacher: Teacher that answers.
        memo: Remembers hashes of files; no embedding is read from it or kept in it.
    """

    teacher: LocalTeacher
    memo: RunCache

    @property
    def cache(self) -> RunCache:
        """Remembers hashes of files and views, and features of frozen students."""
        return self.memo

    def tower(self) -> StudentSpec:
        """Describe the teacher's image tower as a student, the one of VL2V-SD.

        Raises:
            UsageError: The tower does not end in a linear projection, or no card can describe it.
        """
        facts = self.teacher.facts
        spec = StudentSpec(
            architecture=f"image tower of {facts.id}",
            input=InputFormat(facts.image_size, self.teacher.mean, self.teacher.std, "bicubic"),
            features=self.teacher.image_tower().projection.in_features,
            weights_sha256=facts.weights_sha,
            tower=self.teacher.tower_config,
        )
        try:
            read_entry(StudentEntry, json.dumps(spec.to_json()))
        except DataError as error:
            raise UsageError(f"the image tower of {facts.id} cannot be a student: {error}") from error
        return spec

    def plan(self, choice: QueryChoice, *, listed: DomainDataset | None = None, progress: Progress) -> PlannedRun:
        """Name what the teacher will be asked, as a plan without a price; its data set may be `listed` already.

        Raises:
            DataError: The data set cannot be used.
        """
        facts = self.teacher.facts
        queries = collect_queries(choice, self.cache, size=facts.image_size, listed=listed, progress=progress)
        plan = QueryPlan(
            teacher=facts,
            image_keys=tuple(key.hex() for key in view_keys(queries.images, self.cache, size=facts.image_size)),
            text_keys=tuple(f"text {query.text}" for query in queries.texts),
            missing=(),
            image_files=len({query.sample.path for query in queries.images}),
            cached=0,
            seconds=None,
        )
        return PlannedRun(queries, plan)

    def obtain(
        self, settings: RunSettings, planned: PlannedRun, folder: RunFolder, *, progress: Progress
    ) -> tuple[PlannedRun, RunData]:
        """Ask about the training images' views, rendered for it at the teacher's input size.

        Raises:
            CacheError: The disk cannot hold the answers.
            DataError: An image is broken, or a text is too long for the teacher.
        """
        queries, plan = planned.queries, planned.plan
        texts = self.teacher.encode_texts([query.text for query in queries.texts])
        of_text = dict(zip(plan.text_keys, texts.astype(np.float16), strict=True))  # halves, as a cache keeps
        rows = {key: row for row, key in enumerate(plan.image_keys)}
        answers = VectorsByKey(np.load(self._image_answers(planned, folder, progress), mmap_mode="r"), rows)
        fetch = StoredFetch(answers, rows.keys(), of_text)
        data = load_run_data(settings, planned, fetch, folder, self.cache, allow_missing=False, progress=progress)
        training, train = data.training, queries.split.train
        if settings.config.purchase.online:
            files = read_files((sample.path for sample in train), self.cache, progress=progress)
            contents = [files[sample.path] for sample in train]
            training = replace(training, fresh=OnlineViews(train, contents, settings.choice, self.teacher))
        return planned, replace(data, training=training, tower=self.teacher.image_tower)

    def teacher_row(
        self, planned: PlannedRun, data: RunData, target: LabelledViews | None
    ) -> tuple[ReportRow, Choices | None]:
        """Score the teacher on the hold-out and, once all is trained, on the target: asking costs nothing."""
        validation, facts = data.training.validation, self.teacher.facts

        def logits(views: LabelledViews) -> NDArray[np.float32]:
            vectors = self.teacher.encode_images(views.at(facts.image_size).first())
            scale, bias = facts.logit_scale, facts.logit_bias
            return zero_shot_logits(vectors, data.text_classifier, logit_scale=scale, logit_bias=bias)

        row, on_target = ReportRow(ZERO_SHOT, None), None
        if target is not None:
            of_target, target_in = logits(target), len(planned.queries.split.target_in)
            row, on_target = zero_shot_row(of_target, target.labels, target_in=target_in), choose(of_target)
        seen = evaluate(logits(validation), validation.labels, validation.domains)
        return replace(row, source_validation=seen.domain_mean, note="local"), on_target

    def bill(self, settings: RunSettings, planned: PlannedRun, exported: TrainingResult) -> Bill:
        """Return how much the exported student asked; online, each view of each step counts."""
        method, config = exported.method, settings.training
        images, texts = (len(set(keys)) for keys in billable_keys(method, config, planned))
        if settings.config.purchase.online:
            taken = zip(method.stages, exported.stages, strict=True)
            steps = sum(result.steps for stage, result in taken if stage_asks_about_images(stage, config))
            images = steps * config.batch_size * len(planned.queries.split.source_domains)
        return LocalAnswers(images, texts, online=settings.config.purchase.online)

    def share(
        self, planned: PlannedRun, folder: RunFolder, of: str, announce: Announce, *, progress: Progress
    ) -> tuple[PlannedRun, Source]:
        """Return the same teacher, for runs that share no cache: any process may train them."""
        return planned, replace(self, memo=SessionCache(features=FeatureFolder(folder.path / FEATURES_FOLDER)))

    def teacher_accuracy(
        self, planned: PlannedRun, targets: Sequence[str], rows: Mapping[str, ReportRow]
    ) -> dict[str, float]:
        """Return what the reports of the runs say: a local teacher was asked about the whole target."""
        return {target: row.target_in for target, row in rows.items() if row.target_in is not None}

    def _image_answers(self, planned: PlannedRun, folder: RunFolder, progress: Progress) -> Path:
        """Return the file of the answers `[N * A, D]` float16 on the views that are asked about, made once."""
        queries, facts = planned.queries, self.teacher.facts
        pixels = ViewPixels(queries.split.train, queries.views, facts.image_size)
        named = [pixels.of, queries.asked_views, facts.weights_sha, facts.precision]
        path = folder.answers / f"local-teacher-{sha256_hex(json.dumps(named).encode())[:16]}.npy"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with locked(path.parent, waits=True):  # another run of the same target may be making it
                with suppress(OSError, ValueError, EOFError):  # none, or cut short by a power failure: then again
                    np.load(path, mmap_mode="r")
                    return path
                self._write_answers(path, ViewSequence(pixels, queries.asked_views), progress)
        except OSError as error:
            raise CacheError(f"{path} cannot be written ({error.strerror}): make room, then run again") from error
        return path

    def _write_answers(self, path: Path, views: ViewSequence, progress: Progress) -> None:
        header = {"descr": "<f2", "fortran_order": False, "shape": (len(views), self.teacher.facts.embedding_dim)}
        partial = path.with_suffix(f".{token_hex(4)}.partial")  # of its own, should a lock not hold across hosts
        try:
            with partial.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, len(views), BATCH_SIZE):
                    batch = slice(start, min(start + BATCH_SIZE, len(views)))
                    file.write(self.teacher.encode_images(views[batch]).astype("<f2").data)
                    progress("local teacher", batch.stop, len(views))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
