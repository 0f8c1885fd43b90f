"""Score a finished run's student by domain, on its own data set or another; the teacher beside it, if bought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.core.errors import DataError, VendorChanged
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import Sample
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.splits import split
from vl2v_client.data.views import canonical_view
from vl2v_client.evaluation.accuracy import Evaluation, evaluate
from vl2v_client.evaluation.zero_shot import zero_shot_logits
from vl2v_client.export.report import read_report, write_report
from vl2v_client.export.weights import load_bundle
from vl2v_client.planning.plan import make_plan
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.recipes.purchase import Buying, buy_planned, meet
from vl2v_client.recipes.run_folder import RunFolder, open_run_folder
from vl2v_client.recipes.scoring import ZERO_SHOT, zero_shot_row
from vl2v_client.recipes.training import render_canonical
from vl2v_client.student.bundle import StudentCard
from vl2v_client.teacher.classifier import zero_shot_classifier
from vl2v_client.teacher.prompts import PromptTemplateSet

TRAINED_ON = "source, hold-out"
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


@dataclass(frozen=True)
class _Images:
    samples: tuple[Sample, ...]
    roles: dict[str, str]
    own: bool


def evaluate_run(out: Path, *, data: Path | None, buying: Buying | None, progress: Progress) -> RunEvaluation:
    """Score the student in `out`, read back from its files.

    Args:
        out: a run folder.
        data: another data set with the same classes; None is the run's own, of which the source domains' hold-out
            and the whole target domain are scored.
        buying: ask the teacher about the unseen images too; None spends nothing.
        progress: told of rendering and buying.

    Raises:
        RunError: `out` is not a finished run.
        DataError: the data set cannot be used, or has other classes.
    """
    folder = open_run_folder(out)
    bundle = load_bundle(folder.student)
    images = _choose_images(folder, bundle.card, data)
    use = "evaluation" if images.own else "other-data"
    views = render_canonical(folder, use, images.samples, bundle.card.view_size, progress)
    student = evaluate(bundle.classifier.logits(views.pixels[:, 0]), views.labels, views.domains)
    teacher, updated = None, False
    if buying is not None:
        unseen = [sample for sample in images.samples if images.roles[sample.domain] == UNSEEN]
        if not unseen:
            raise DataError("no domain was held out, so there is no unseen image to ask the teacher about")
        logits = _ask_teacher(unseen, folder, bundle.card.class_names, buying, progress)
        labels = np.array([sample.class_index for sample in unseen])
        teacher = evaluate(logits, labels, [sample.domain for sample in unseen])
        updated = images.own and _add_teacher_row(folder, logits, labels)
    return RunEvaluation(tuple(_rows(images, student, teacher)), updated)


def _choose_images(folder: RunFolder, card: StudentCard, data: Path | None) -> _Images:
    config = folder.config
    dataset = _matching_dataset(data or Path(config["data"]), card)
    if data is not None and data.resolve() != Path(config["data"]):
        return _Images(dataset.samples, dict.fromkeys(dataset.domains, UNSEEN), own=False)
    parts = split(dataset, target_domain=config["target_domain"], seed=config["seed"])
    roles = dict.fromkeys(parts.source_domains, TRAINED_ON)
    if parts.target_domain is not None:
        roles[parts.target_domain] = UNSEEN
    return _Images((*parts.validation, *parts.target), roles, own=True)


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
    samples: Sequence[Sample], folder: RunFolder, class_names: Sequence[str], buying: Buying, progress: Progress
) -> NDArray[np.float32]:
    """The teacher's zero-shot logits `[N, C]` on the samples' canonical views; buys what the cache lacks."""
    teacher, of_run = meet(buying), folder.config["teacher"]
    if (teacher.id, teacher.weights_sha) != (of_run["id"], of_run["weights_sha"]):
        raise VendorChanged(
            f"the student's teacher was {of_run['id']}, and the vendor serves {teacher.id} with other "
            "weights; nothing was bought: name the teacher with --model, or use the vendor that has it"
        )
    prompts = PromptTemplateSet(tuple(folder.config["prompt_templates"])).prompts(class_names)
    texts = [TextQuery(text) for of_class in prompts for text in of_class]
    images = [ImageQuery(sample, canonical_view()) for sample in samples]
    plan = make_plan(images, texts, teacher, buying.cache, progress=progress)
    buy_planned(plan, buying, progress=progress)
    vectors = buying.cache.get_many([*plan.image_keys, *plan.text_keys])
    text_vectors = np.stack([vectors[key] for key in plan.text_keys])
    classifier = zero_shot_classifier(text_vectors.reshape(len(class_names), -1, teacher.embedding_dim))
    image_vectors = np.stack([vectors[key] for key in plan.image_keys]).astype(np.float32)
    return zero_shot_logits(image_vectors, classifier, logit_scale=teacher.logit_scale, logit_bias=teacher.logit_bias)


def _add_teacher_row(folder: RunFolder, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> bool:
    report = read_report(folder.path)
    parts = split(
        open_dataset(Path(folder.config["data"])),
        target_domain=folder.config["target_domain"],
        seed=folder.config["seed"],
    )
    row = zero_shot_row(logits, labels, target_in=len(parts.target_in))
    rows = [replace(row, note=old.note) if old.name == ZERO_SHOT else old for old in report.rows]
    purchase = None if report.purchase is None else replace(report.purchase, test_images=len(labels))
    write_report(folder.path, replace(report, rows=tuple(rows), purchase=purchase))
    return True


def _rows(images: _Images, student: Evaluation, teacher: Evaluation | None) -> list[DomainScore]:
    rows = []
    for domain, count in student.by_domain.items():
        asked = teacher is not None and domain in teacher.by_domain
        zero_shot = teacher.by_domain[domain].accuracy if asked and teacher is not None else None
        rows.append(DomainScore(domain, images.roles[domain], count.total, count.accuracy, zero_shot))
    return rows
