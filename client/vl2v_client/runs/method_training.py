"""Train what a run is made of: its method and its baselines, all on the same views and bought targets."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

from vl2v_client.cache.feature_store import FeatureFolder, FeatureStore
from vl2v_client.cache.memo import RunCache
from vl2v_client.core.progress import Notify, Progress, format_seconds, renamed
from vl2v_client.core.values import EmbeddingMatrix, Sample, TeacherModel, child_seed
from vl2v_client.data.view_pixels import ViewPixels
from vl2v_client.data.views import View, canonical_view
from vl2v_client.local.teacher import ImageTower
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.reports.pages import percent
from vl2v_client.runs.config_record import CONFIG_FORMAT
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.student_features import frozen_features, view_names
from vl2v_client.runs.teacher_answers import asked_targets, lend_to_all_views, text_classifier
from vl2v_client.student.loss.extension import extended
from vl2v_client.student.loss.methods import ERM, METHODS, Method, Stage, asks_about_texts, erm
from vl2v_client.student.model.classifier import StudentClassifier, TextHead, new_classifier
from vl2v_client.student.model.network import Student
from vl2v_client.student.train.closed_form import fit_probe
from vl2v_client.student.train.feeds import FEATURE_BYTES
from vl2v_client.student.train.frozen_features import Activations
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.results import TrainingResult, choose_learning_rate
from vl2v_client.student.train.training_data import LabelledViews, TrainingData, labelled_views
from vl2v_client.teacher.imputation import NO_IMPUTATION, impute
from vl2v_client.teacher.targets import Fetch, ImageTargets, views_with_targets, weigh_by_agreement


@dataclass(frozen=True)
class TrainedMethod:
    """How one of the run's methods went.

    Attributes:
        name: Its key in `student.loss.methods.METHODS`, or `probe`.
        note: What source validation chose beside the weights; empty if nothing.
        place: Name of the folder with its metrics; its own name if left out.
    """

    name: str
    result: TrainingResult
    note: str
    place: str = ""


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
    cache: RunCache,
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
        cache: The client's, which knows files by their content and keeps features.
        allow_missing: Images without a vector are no error.
        progress: Gets the progress of imputing.

    Raises:
        CacheError: An embedding is missing.
        DataError: An image has broken since it was bought, or a text was not bought.
    """
    queries, size = planned.queries, folder.view_size(settings.student.input.size, planned.plan.teacher.image_size)
    held_out, train = queries.split.validation, queries.split.train
    whole = (canonical_view(),)
    views = queries.views if any(queries.views) else [whole] * len(train)  # no views: every image trains on its text
    of_held_out = [whole] * len(held_out)

    def load(samples: Sequence[Sample], of_each: Sequence[Sequence[View]]) -> LabelledViews:
        pixels, names = ViewPixels(samples, of_each, size, folder.pixels), view_names(samples, of_each, size, cache)
        return labelled_views(pixels, samples, names)

    validation, train_views = load(held_out, of_held_out), load(train, views)
    classifier = text_classifier(planned, fetch)

    asked, lenders = asked_targets(planned, fetch, allow_missing=allow_missing), queries.asked_views
    asked = _impute(settings, asked, train_views, cache.features, progress)
    if settings.training.trust == "agreement" and queries.asked_views > 0:
        styles = [[view.style or "" for view in views[: queries.asked_views]] for views in queries.views]
        asked, lenders = weigh_by_agreement(asked, classifier, train_views.labels, styles), 1  # the canonical view
    lenders = lenders if settings.training.unbought == "borrow" else 0
    targets = lend_to_all_views(asked, train_views.view_count, lenders=lenders)
    data = TrainingData(train_views, validation, targets, features=cache.features)
    if settings.training.unbought == "leave-out" and targets.weights.any():
        shown = views_with_targets(targets.weights)
        shown_views = [[of_one[view] for view in row] for of_one, row in zip(views, shown.tolist(), strict=True)]
        data = replace(data, train=load(train, shown_views), targets=targets.of_views(shown))
    return RunData(replace(data, activations=_activations(settings, data.train)), targets, classifier)


def _activations(settings: RunSettings, train: LabelledViews) -> Activations | None:
    """Return a place for what first blocks say of all views, if a stage trains above them and keeps it."""
    config, views, domains = settings.training, len(train) * train.view_count, len(set(train.domains))
    stages = [stage for name in config.methods for stage in METHODS[name](config).stages]
    is_asked = any(stage.freeze_until and views <= config.drawn_views(stage.steps, domains) for stage in stages)
    is_kept = is_asked and not config.quick and not settings.config.purchase.online
    return Activations(config.freeze_until, FEATURE_BYTES) if is_kept else None


def _impute(
    settings: RunSettings,
    asked: ImageTargets,
    train: LabelledViews,
    store: FeatureStore | FeatureFolder | None,
    progress: Progress,
) -> ImageTargets:
    """Return targets of the views `[N, A]` that are asked about, imputed where they were not bought, if wished."""
    if settings.config.purchase.impute == NO_IMPUTATION or bool(asked.weights.all()):
        return asked
    views, seed = asked.bought.shape[1], settings.choice.seed
    features = frozen_features(settings, train, views, store, progress)
    of_views = features.reshape(len(train), views, -1)
    return impute(asked, features=of_views, labels=train.labels, domains=train.domains, seed=seed)


@dataclass(frozen=True)
class MethodTraining:
    """Trains a run's methods on its data.

    Attributes:
        settings: Settings of the run.
        data: What it trains and selects on; a method that asks no teacher gets no targets.
        teacher: Model whose text classifier a student with a text head gets.
        folder: Keeps checkpoints and metrics under each method's name.
        progress: Gets every step; other methods than the exported one say which they are.
        notify: Gets what a stage has reached or will take, as `student.train.loop.train` says it.
    """

    settings: RunSettings
    data: RunData
    teacher: TeacherModel
    folder: RunFolder
    progress: Progress
    notify: Notify

    def probe(self) -> TrainedMethod | None:
        """Make the labels-only probe beside a method that learns from bought answers, on what the frozen student says.

        It is the first student of a run. A run that an earlier version began has none; one that stops before the
        backbone trains has one where nothing of its method would be left.
        """
        config, own = self.settings.training, METHODS[self.settings.training.method](self.settings.training)
        is_rival = config.probe and self.folder.written["format"] == CONFIG_FORMAT and asks_about_texts(own)
        is_all_there_is = config.quick and not _frozen_stages(own)
        if own.white_box or not (is_rival or is_all_there_is):
            return None
        start, seed = time.monotonic(), child_seed(config.seed, "initial weights")
        classes = len(self.data.text_classifier)
        classifier = new_classifier(self.settings.student, None, class_count=classes, seed=seed)
        result = fit_probe(classifier, self.data.training.at(classifier.input.size), config, progress=self.progress)
        reached, took = percent(result.validation.accuracy), format_seconds(time.monotonic() - start)
        self.notify(f"A {result.method.name} on the frozen student has {reached} on source validation, after {took}.")
        return TrainedMethod("probe", result, "labels alone, on the features of the student as it was pretrained")

    def methods(self) -> list[TrainedMethod]:
        """Train the run's methods, the exported one last; without those of which nothing is left in a quick run."""
        config = self.settings.training
        wanted = [name for name in config.methods if not config.quick or _frozen_stages(METHODS[name](config))]
        return [self._train_erm() if name == ERM else self._train_named(name) for name in wanted]

    def _train_named(self, name: str) -> TrainedMethod:
        method, config = METHODS[name](self.settings.training), self.settings.training
        if config.quick:
            method = replace(method, name=f"{method.name}, frozen", stages=_frozen_stages(method), interpolate=False)
        is_exported = name == config.method
        told = self.progress if is_exported else renamed(self.progress, lambda phase: f"{name}: {phase}")
        result = self._train(method, name, told)
        return TrainedMethod(name, result, _interpolation_note(result))

    def _train_erm(self) -> TrainedMethod:
        """Train ERM at several learning rates, among which source validation chooses."""

        def run(rate: float) -> TrainingResult:
            told = renamed(self.progress, lambda phase: f"{phase}, lr {rate:g}")
            method = erm(self.settings.training.model_copy(update={"distill_learning_rate": rate}))
            return self._train(method, f"{ERM}-lr-{rate:g}", told)

        rate, result = choose_learning_rate(self.settings.erm_learning_rates, run)
        notes = [f"learning rate {rate:g}, chosen on source validation", _interpolation_note(result)]
        return TrainedMethod(ERM, result, "; ".join(note for note in notes if note), f"{ERM}-lr-{rate:g}")

    def _train(self, method: Method, place: str, progress: Progress) -> TrainingResult:
        settings, data, teacher = self.settings, self.data, self.teacher
        method = method if settings.training.quick else extended(method, settings.training)
        head = TextHead(data.text_classifier, teacher.logit_scale, teacher.logit_bias)
        if method.white_box and settings.tower is not None and data.tower is not None:
            classifier = StudentClassifier(Student(*data.tower()), settings.tower.input, head)
        else:
            classifier = new_classifier(
                settings.student,
                head if method.head == "text" else None,
                class_count=len(data.text_classifier),
                seed=child_seed(settings.training.seed, "initial weights"),
            )
        seen = data.training.at(self.folder.view_size(classifier.input.size, teacher.image_size))
        seen = replace(seen, teacher_head=head) if asks_about_texts(method) else replace(seen, targets=None)
        folder = self.folder.method(place)
        return train(method, classifier, seen, settings.training, folder=folder, progress=progress, notify=self.notify)


def exported_last(trained: Sequence[TrainedMethod], probe: TrainedMethod | None, exported: str) -> list[TrainedMethod]:
    """Return a run's students with its probe, the one to export last: the probe if it validates better.

    Of the method that is `exported` nothing may be left in a quick run: then it is the probe too.
    """
    if probe is None:
        return [*trained]
    if not trained or trained[-1].name != exported:
        return [*trained, probe]
    *others, method = trained
    is_better = probe.result.validation.accuracy > method.result.validation.accuracy
    return [*others, method, probe] if is_better else [*others, probe, method]


def _frozen_stages(method: Method) -> tuple[Stage, ...]:
    """Return a method's stages before the first that trains the backbone."""
    return tuple(takewhile(lambda stage: "backbone" not in stage.trains, method.stages))


def _interpolation_note(result: TrainingResult) -> str:
    if result.interpolation is None:
        return ""
    return f"WiSE-FT with {result.interpolation:.0%} of the trained weights, chosen on source validation"
