"""Train what a run is made of: VL2V-ADiP on bought targets, and the baselines on the same views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import DataError
from vl2v_client.core.progress import Progress, renamed
from vl2v_client.core.seeds import child_seed
from vl2v_client.core.values import EmbeddingMatrix, Sample
from vl2v_client.data.renders import render_views
from vl2v_client.data.views import View, canonical_view
from vl2v_client.planning.plan import QueryPlan
from vl2v_client.recipes.purchase import PlannedRun
from vl2v_client.recipes.run_folder import RunFolder
from vl2v_client.recipes.settings import RunSettings
from vl2v_client.student.batches import TrainingData
from vl2v_client.student.classifier import StudentClassifier, TextHead
from vl2v_client.student.model import build_student
from vl2v_client.student.samples import LabelledViews, labelled_views
from vl2v_client.student.selection import choose_learning_rate
from vl2v_client.student.stages import erm, vl2v_adip
from vl2v_client.student.training import TrainingResult, train
from vl2v_client.teacher.classifier import zero_shot_classifier
from vl2v_client.teacher.targets import ImageTargets, join_image_targets


@dataclass(frozen=True)
class RunData:
    """What training reads. Nothing of the target domain.

    Attributes:
        text_classifier: `[C, D]` unit rows.
    """

    training: TrainingData
    targets: ImageTargets
    text_classifier: EmbeddingMatrix


def load_run_data(
    planned: PlannedRun, cache: EmbeddingCache, folder: RunFolder, *, allow_missing: bool, progress: Progress
) -> RunData:
    """Join the training images' rendered views with their bought embeddings, and render the hold-out.

    Raises:
        CacheError: an embedding is missing, or the disk cannot hold the rendered views.
        DataError: an image has broken since it was bought.
    """
    queries, plan = planned.queries, planned.plan
    size, train = plan.teacher.image_size, queries.split.train
    validation = render_canonical(folder, "validation", queries.split.validation, size, progress)
    vectors = cache.get_many([*plan.image_keys, *plan.text_keys])
    if plan.image_keys:
        train_views = render(folder, "train", train, queries.views, size, progress)
        targets = join_image_targets(
            _rows(plan.image_keys, train_views.view_count),
            vectors,
            dimension=plan.teacher.embedding_dim,
            names=[str(sample.path) for sample in train],
            allow_missing=allow_missing,
        )
    else:  # --views 0: nothing was asked about images, and every image trains on its text
        train_views = render_canonical(folder, "train", train, size, progress)
        nothing = np.zeros((len(train), 1, plan.teacher.embedding_dim), dtype=np.float32)
        targets = ImageTargets(nothing, np.zeros((len(train), 1), dtype=np.bool_))
    for query, key in zip(queries.texts, plan.text_keys, strict=True):
        if key not in vectors:
            raise DataError(
                f"there is no embedding of {query.name}, and nothing trains without it: buy it, or rename "
                "its class folder"
            )
    texts = np.stack([vectors[key] for key in plan.text_keys])
    classifier = zero_shot_classifier(texts.reshape(len(queries.dataset.class_names), -1, plan.teacher.embedding_dim))
    return RunData(TrainingData(train_views, validation, targets), targets, classifier)


def train_vl2v_adip(
    settings: RunSettings, data: RunData, plan: QueryPlan, folder: RunFolder, *, progress: Progress
) -> TrainingResult:
    """Align, then distil."""
    head = TextHead(data.text_classifier, plan.teacher.logit_scale, plan.teacher.logit_bias)
    classifier = _fresh(settings, outputs=plan.teacher.embedding_dim, head=head)
    method = vl2v_adip(settings.training)
    return train(method, classifier, data.training, settings.training, folder=folder.method("adip"), progress=progress)


def train_erm(
    settings: RunSettings, data: RunData, folder: RunFolder, *, classes: int, progress: Progress
) -> tuple[float, TrainingResult]:
    """Train on labels alone, once per learning rate of the grid; source validation chooses.

    Returns:
        The learning rate chosen, and its run.
    """
    labels_alone = replace(data.training, targets=None)

    def run(rate: float) -> TrainingResult:
        classifier = _fresh(settings, outputs=classes, head=None)
        method = erm(settings.training, learning_rate=rate)
        place = folder.method(f"erm-lr-{rate:g}")
        told = renamed(progress, lambda phase: f"{phase}, lr {rate:g}")
        return train(method, classifier, labels_alone, settings.training, folder=place, progress=told)

    return choose_learning_rate(settings.erm_learning_rates, run)


def render(
    folder: RunFolder,
    use: str,
    samples: Sequence[Sample],
    views: Sequence[Sequence[View]],
    size: int,
    progress: Progress,
) -> LabelledViews:
    """The samples' views as labelled pixels `[N, K, size, size, 3]`, rendered once into the run folder."""
    told = renamed(progress, lambda phase: f"{phase} {use}")
    store = render_views(folder.renders(use), samples, views, size=size, progress=told)
    return labelled_views(store, samples)


def render_canonical(
    folder: RunFolder, use: str, samples: Sequence[Sample], size: int, progress: Progress
) -> LabelledViews:
    """The samples' canonical views as labelled pixels `[N, 1, size, size, 3]`."""
    return render(folder, use, samples, [(canonical_view(),)] * len(samples), size, progress)


def _rows(keys: Sequence[str], length: int) -> list[Sequence[str]]:
    return [keys[start : start + length] for start in range(0, len(keys), length)]


def _fresh(settings: RunSettings, *, outputs: int, head: TextHead | None) -> StudentClassifier:
    seed = child_seed(settings.training.seed, "initial weights")
    return StudentClassifier(build_student(settings.student, outputs=outputs, seed=seed), settings.student.input, head)
