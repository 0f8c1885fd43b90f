"""Score a finished run's student by domain, on its own data set or another; the teacher beside it, if bought."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from vl2v_client.buying.context import PurchaseContext, buy_planned, meet
from vl2v_client.core.errors import DataError, RunError, UsageError, VendorChanged
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import Sample
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.views import canonical_view
from vl2v_client.evaluation.accuracy import Evaluation, choose, evaluate
from vl2v_client.evaluation.zero_shot import zero_shot_logits
from vl2v_client.export.report import ReportRow, read_report, write_report
from vl2v_client.export.weights import load_bundle
from vl2v_client.local.teacher import LOCAL_LEDGER
from vl2v_client.planning.hashing import hash_in_threads
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.planning.query_plan import make_plan
from vl2v_client.runs.method_training import render_canonical
from vl2v_client.runs.prediction_rows import keep_predictions
from vl2v_client.runs.run_folder import CONFIG_FILE, RunFolder, claim_finished_run
from vl2v_client.runs.run_images import RunImages, read_images
from vl2v_client.runs.scoring import ZERO_SHOT, zero_shot_row
from vl2v_client.student.model.bundle import StudentCard
from vl2v_client.teacher.prompts import PromptTemplateSet
from vl2v_client.teacher.text_classifier import zero_shot_classifier

TRAINED_ON = "trained on"
HOLD_OUT = "source, hold-out"
UNSEEN = "unseen"


@dataclass(frozen=True, slots=True)
class DomainScore:
    """One domain's row.

    Attributes:
        role: what the student's training had to do with these images.
        student: accuracy, 0 to 1.
        teacher: zero-shot accuracy; None if it was not asked.
    """

    domain: str
    role: str
    images: int
    student: float
    teacher: float | None


@dataclass(frozen=True)
class RunEvaluation:
    """A student's accuracy by domain.

    Attributes:
        report_updated: the run's report now holds the teacher's row.
    """

    scores: tuple[DomainScore, ...]
    report_updated: bool


class _Teacher(BaseModel):
    id: str
    ledger_id: str
    weights_sha: str


class _Data(BaseModel):
    root: str
    prompts: list[str]


class _Config(BaseModel):
    """What is read of a run's configuration, which may be somebody else's."""

    data: _Data
    teacher: _Teacher


@dataclass(frozen=True)
class _Images:
    """What is scored: the samples below `root` with their roles, and the run's record if they are its own."""

    root: Path
    samples: tuple[Sample, ...]
    roles: tuple[str, ...]
    record: RunImages | None


def evaluate_run(out: Path, *, data: Path | None, context: PurchaseContext | None, progress: Progress) -> RunEvaluation:
    """Score the student in `out`, read back from its files.

    Args:
        out: a run folder.
        data: another data set with the same classes, of which every image is scored; None is the run's own, of which
            the source domains' hold-out and the whole target domain are scored, as they were when it was trained.
        context: ask the teacher about the unseen images too; None spends nothing.
        progress: told of rendering and buying.

    Raises:
        UsageError: the teacher is to be bought, and the run has its row from a local one.
        RunError: `out` is not a finished run, or another process is at work in it.
        DataError: the data set cannot be used, has other classes, or has lost or changed images of the run.
    """
    with claim_finished_run(out) as folder:
        bundle, config = load_bundle(folder.student), _read_config(folder)
        images = _choose_images(folder, Path(config.data.root), bundle.card, data)
        use = "evaluation" if images.record else "other-data"
        views = render_canonical(folder, use, images.samples, bundle.card.view_size, progress)
        student = bundle.classifier.logits(views.pixels[:, 0])
        right = student.argmax(axis=1) == views.labels
        unseen = [sample for sample, role in zip(images.samples, images.roles, strict=True) if role == UNSEEN]
        of_unseen = student[[role == UNSEEN for role in images.roles]]
        choices = {bundle.card.method: choose(of_unseen, bundle.card.temperature)}
        teacher = None
        if context is not None:
            _check_bought(config, images)
            if not unseen:
                raise DataError("the student has seen all of these images, so there is none to ask the teacher about")
            logits = _ask_teacher(unseen, config, bundle.card.class_names, context, progress)
            labels = np.array([sample.class_index for sample in unseen])
            teacher = evaluate(logits, labels, [sample.domain for sample in unseen])
            choices[ZERO_SHOT] = choose(logits)
            if images.record is not None:
                _add_teacher_row(folder, zero_shot_row(logits, labels, target_in=images.record.target_in), len(labels))
        if images.record is not None:
            keep_predictions(folder, images.root, unseen, bundle.card.class_names, choices, keep_others=True)
        updated = teacher is not None and images.record is not None
        return RunEvaluation(tuple(_rows(images, right, teacher)), updated)


def _read_config(folder: RunFolder) -> _Config:
    try:
        return _Config.model_validate(folder.config)
    except ValidationError as error:
        entry = "/".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise RunError(
            f"{folder.path / CONFIG_FILE} has no right entry {entry!r}: put back a copy of it, or run again"
        ) from error


def _check_bought(config: _Config, images: _Images) -> None:
    if images.record is not None and config.teacher.ledger_id == LOCAL_LEDGER:
        raise UsageError("the report has the local teacher's row already: leave the teacher out, or name other data")


def _choose_images(folder: RunFolder, own: Path, card: StudentCard, data: Path | None) -> _Images:
    record = read_images(folder)
    dataset = _matching_dataset(data or own, card)
    if data is None or data.resolve() == own:
        return _own_images(dataset, record)
    roles = dict.fromkeys(record.validation.values(), HOLD_OUT) | dict.fromkeys(record.train.values(), TRAINED_ON)
    hashes = hash_in_threads([str(sample.path) for sample in dataset.samples])
    return _Images(dataset.root, dataset.samples, tuple(roles.get(file_sha, UNSEEN) for file_sha in hashes), None)


def _own_images(dataset: DomainDataset, record: RunImages) -> _Images:
    found = {str(sample.path.relative_to(dataset.root)): sample for sample in dataset.samples}
    wanted = record.validation | record.target
    if not wanted:
        raise DataError(f"the run was judged by no image of {dataset.root}: score another folder with --data")
    kept = [name for name in wanted if name in found]
    now = dict(zip(kept, hash_in_threads([str(found[name].path) for name in kept]), strict=True))
    lost = [name for name in wanted if now.get(name) != wanted[name]]
    if lost:
        raise DataError(
            f"{dataset.root} has lost or changed {len(lost):,} images that the run was judged by, such as {lost[0]}: "
            "put them back, or score another data set"
        )
    roles = tuple(UNSEEN if name in record.target else HOLD_OUT for name in wanted)
    return _Images(dataset.root, tuple(found[name] for name in wanted), roles, record)


def _matching_dataset(root: Path, card: StudentCard) -> DomainDataset:
    dataset = open_dataset(root)
    if dataset.class_names != card.class_names:
        raise DataError(
            f"{root} has the classes {', '.join(dataset.class_names)}; the student knows "
            f"{', '.join(card.class_names)}: "
            "give a data set with the same class folders"
        )
    return dataset


def _ask_teacher(
    samples: Sequence[Sample], config: _Config, class_names: Sequence[str], context: PurchaseContext, progress: Progress
) -> NDArray[np.float32]:
    """The teacher's zero-shot logits `[N, C]` on the samples' canonical views; buys what the cache lacks."""
    teacher, of_run = meet(context), config.teacher
    if (teacher.id, teacher.weights_sha) != (of_run.id, of_run.weights_sha):
        raise VendorChanged(
            f"the student's teacher was {of_run.id}, and the vendor serves {teacher.id} with other "
            "weights; nothing was bought: name the teacher with purchase.model, or use the vendor that has it"
        )
    prompts = PromptTemplateSet(tuple(config.data.prompts)).prompts(class_names)
    texts = [TextQuery(text) for of_class in prompts for text in of_class]
    images = [ImageQuery(sample, canonical_view()) for sample in samples]
    plan = make_plan(images, texts, teacher, context.cache, progress=progress)
    buy_planned(plan, context, progress=progress)
    vectors = context.cache.get_many([*plan.image_keys, *plan.text_keys])
    text_vectors = np.stack([vectors[key] for key in plan.text_keys])
    classifier = zero_shot_classifier(text_vectors.reshape(len(class_names), -1, teacher.embedding_dim))
    image_vectors = np.stack([vectors[key] for key in plan.image_keys]).astype(np.float32)
    return zero_shot_logits(image_vectors, classifier, logit_scale=teacher.logit_scale, logit_bias=teacher.logit_bias)


def _add_teacher_row(folder: RunFolder, row: ReportRow, test_images: int) -> None:
    report = read_report(folder.path)
    rows = [replace(row, note=old.note) if old.name == ZERO_SHOT else old for old in report.rows]
    purchase = None if report.purchase is None else replace(report.purchase, test_images=test_images)
    write_report(folder.path, replace(report, rows=tuple(rows), purchase=purchase))


def _rows(images: _Images, right: NDArray[np.bool_], teacher: Evaluation | None) -> Iterator[DomainScore]:
    groups = [(sample.domain, role) for sample, role in zip(images.samples, images.roles, strict=True)]
    for domain, role in sorted(set(groups)):
        mine = right[[group == (domain, role) for group in groups]]
        zero_shot = None if teacher is None or role != UNSEEN else teacher.by_domain[domain].accuracy
        yield DomainScore(domain, role, len(mine), float(mine.mean()), zero_shot)
