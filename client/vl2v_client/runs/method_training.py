"""Train what a run is made of: its method and its baselines, all on the same views and bought targets."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v_client.core.progress import Progress, renamed, silent
from vl2v_client.core.values import EmbeddingMatrix, PixelSource, TeacherModel, child_seed
from vl2v_client.data.view_pixels import ViewPixels, ViewSequence, canonical_pixels
from vl2v_client.local.teacher import ImageTower
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.runs.config_record import CONFIG_FORMAT
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.teacher_answers import asked_targets, lend_to_all_views, text_classifier
from vl2v_client.student.loss.extension import extended
from vl2v_client.student.loss.methods import ERM, METHODS, Method, asks_about_texts, erm
from vl2v_client.student.model.classifier import StudentClassifier, TextHead, new_classifier, student_input
from vl2v_client.student.model.network import Student, build_student
from vl2v_client.student.model.spec import StudentSpec
from vl2v_client.student.train.closed_form import fit_probe
from vl2v_client.student.train.devices import resolve_device
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.results import TrainingResult, choose_learning_rate
from vl2v_client.student.train.training_data import LabelledViews, TrainingData, labelled_views
from vl2v_client.teacher.targets import NO_IMPUTATION, Fetch, ImageTargets, impute, weigh_by_agreement

_BATCH_SIZE = 128


def run_features(settings: RunSettings, planned: PlannedRun, progress: Progress) -> NDArray[np.float32]:
    """Return the features `[N, F]` of the canonical views of a run's training images, in the order of the split."""
    spec = settings.student
    images = ViewSequence(canonical_pixels(planned.queries.split.train, spec.input.size))
    seed, device = settings.choice.seed, settings.training.device
    return frozen_features(spec, images, seed=seed, device=device, progress=progress)


@torch.no_grad()
def frozen_features(
    spec: StudentSpec, images: PixelSource, *, seed: int, device: str = "auto", progress: Progress = silent
) -> NDArray[np.float32]:
    """Return the frozen student's features `[M, F]` of images `[M, S, S, 3]`, best at its input size; read in batches.

    The seed of the run draws the weights of a student without pretrained ones.

    Raises:
        DataError: An image is broken, or the student's weights cannot be had.
    """
    place = resolve_device(device)
    backbone = build_student(spec, outputs=1, seed=child_seed(seed, "initial weights")).backbone.to(place).eval()
    features = np.zeros((len(images), spec.features), dtype=np.float32)
    for start in range(0, len(images), _BATCH_SIZE):
        batch = slice(start, min(start + _BATCH_SIZE, len(images)))
        features[batch] = backbone(student_input(images[batch], spec.input, place)).float().cpu().numpy()
        progress("student features", batch.stop, len(images))
    return features


@dataclass(frozen=True)
class TrainedMethod:
    """How one of the run's methods went.

    Attributes:
        name: Its key in `student.loss.methods.METHODS`, or `probe`.
        note: What source validation chose beside the weights; empty if nothing.
    """

    name: str
    result: TrainingResult
    note: str


@dataclass(frozen=True)
class RunData:
    """What training reads. Nothing of the target domain.

    Attributes:
        text_classifier: `[C, D]` unit rows.
        tower: Copies a local teacher's image tower, the student of white-box methods.
    """

    training: TrainingData
    targets: ImageTargets
    text_classifier: EmbeddingMatrix
    tower: Callable[[], ImageTower] | None = None


def load_run_data(
    settings: RunSettings,
    planned: PlannedRun,
    fetch: Fetch,
    folder: RunFolder,
    *,
    allow_missing: bool,
    progress: Progress,
) -> RunData:
    """Join the training images' views with their bought or imputed embeddings.

    Args:
        settings: Settings of the run.
        planned: Its queries and plan.
        fetch: Gives the teacher's vectors by the plan's keys.
        folder: Folder of the run.
        allow_missing: Images without a vector are no error.
        progress: Gets the progress of imputing.

    Raises:
        CacheError: An embedding is missing.
        DataError: An image has broken since it was bought, or a text was not bought.
    """
    queries, size = planned.queries, folder.view_size(settings.student.input.size, planned.plan.teacher.image_size)
    held_out, train = queries.split.validation, queries.split.train
    validation = labelled_views(canonical_pixels(held_out, size, folder.pixels), held_out)
    if any(queries.views):
        pixels = ViewPixels(train, queries.views, size, folder.pixels)
    else:  # no views: every image trains on its text
        pixels = canonical_pixels(train, size, folder.pixels)
    train_views, classifier = labelled_views(pixels, train), text_classifier(planned, fetch)

    asked, lenders = asked_targets(planned, fetch, allow_missing=allow_missing), queries.asked_views
    asked = _impute(settings, asked, train_views, progress)
    if settings.training.trust == "agreement" and queries.asked_views > 0:
        styles = [[view.style or "" for view in views[: queries.asked_views]] for views in queries.views]
        asked, lenders = weigh_by_agreement(asked, classifier, train_views.labels, styles), 1  # the canonical view
    targets = lend_to_all_views(asked, train_views.view_count, lenders=lenders)
    return RunData(TrainingData(train_views, validation, targets), targets, classifier)


def _impute(settings: RunSettings, asked: ImageTargets, train: LabelledViews, progress: Progress) -> ImageTargets:
    """Return targets of the views `[N, A]` that are asked about, imputed where they were not bought, if wished."""
    if settings.config.purchase.impute == NO_IMPUTATION or bool(asked.weights.all()):
        return asked
    views, seed, device = asked.bought.shape[1], settings.choice.seed, settings.training.device
    features = frozen_features(settings.student, train.first(views), seed=seed, device=device, progress=progress)
    of_views = features.reshape(len(train), views, -1)
    return impute(asked, features=of_views, labels=train.labels, domains=train.domains, seed=seed)


def train_method(
    name: str, settings: RunSettings, data: RunData, teacher: TeacherModel, folder: RunFolder, *, progress: Progress
) -> TrainedMethod:
    """Train one of the run's methods on its data; ERM at several learning rates.

    Args:
        name: A key of `student.loss.methods.METHODS`.
        settings: Settings of the run.
        data: What it trains and selects on; a method that asks no teacher gets no targets.
        teacher: Model whose text classifier a student with a text head gets.
        folder: Keeps checkpoints and metrics under the method's name.
        progress: Gets every step; other methods than the exported one say which they are.
    """
    if name == ERM:
        return _train_erm(settings, data, teacher, folder, progress)
    told = progress if name == settings.training.method else renamed(progress, lambda phase: f"{name}: {phase}")
    result = _train(METHODS[name](settings.training), settings, data, teacher, folder, name, told)
    return TrainedMethod(name, result, _interpolation_note(result))


def with_probe(
    settings: RunSettings, data: RunData, trained: Sequence[TrainedMethod], folder: RunFolder, *, progress: Progress
) -> list[TrainedMethod]:
    """Put a labels-only probe beside a method that learns from bought answers: before it, or if it is better, after it.

    The last is exported. A run that an earlier version began exports its method.
    """
    *others, distilled = trained
    method, is_wanted = distilled.result.method, settings.training.probe and folder.written["format"] == CONFIG_FORMAT
    if not is_wanted or method.white_box or not asks_about_texts(method):
        return [*trained]
    seed, classes = child_seed(settings.training.seed, "initial weights"), len(data.text_classifier)
    classifier = new_classifier(settings.student, None, class_count=classes, seed=seed)
    result = fit_probe(classifier, data.training.at(classifier.input.size), settings.training, progress=progress)
    probe = TrainedMethod("probe", result, "labels alone, on the features of the student as it was pretrained")
    is_better = result.validation.accuracy > distilled.result.validation.accuracy
    return [*others, distilled, probe] if is_better else [*others, probe, distilled]


def _train_erm(
    settings: RunSettings, data: RunData, teacher: TeacherModel, folder: RunFolder, progress: Progress
) -> TrainedMethod:
    """Return source validation chooses the learning rate."""

    def run(rate: float) -> TrainingResult:
        rate_progress = renamed(progress, lambda phase: f"{phase}, lr {rate:g}")
        method = erm(settings.training.model_copy(update={"distill_learning_rate": rate}))
        return _train(method, settings, data, teacher, folder, f"{ERM}-lr-{rate:g}", rate_progress)

    rate, result = choose_learning_rate(settings.erm_learning_rates, run)
    notes = [f"learning rate {rate:g}, chosen on source validation", _interpolation_note(result)]
    return TrainedMethod(ERM, result, "; ".join(note for note in notes if note))


def _train(
    method: Method,
    settings: RunSettings,
    data: RunData,
    teacher: TeacherModel,
    folder: RunFolder,
    place: str,
    progress: Progress,
) -> TrainingResult:
    config = settings.training
    method = extended(method, config)
    head = TextHead(data.text_classifier, teacher.logit_scale, teacher.logit_bias)
    if method.white_box and settings.tower is not None and data.tower is not None:
        classifier = StudentClassifier(Student(*data.tower()), settings.tower.input, head)
    else:
        classifier = new_classifier(
            settings.student,
            head if method.head == "text" else None,
            class_count=len(data.text_classifier),
            seed=child_seed(config.seed, "initial weights"),
        )
    seen = data.training.at(folder.view_size(classifier.input.size, teacher.image_size))
    seen = replace(seen, teacher_head=head) if asks_about_texts(method) else replace(seen, targets=None)
    return train(method, classifier, seen, config, folder=folder.method(place), progress=progress)


def _interpolation_note(result: TrainingResult) -> str:
    if result.interpolation is None:
        return ""
    return f"WiSE-FT with {result.interpolation:.0%} of the trained weights, chosen on source validation"
