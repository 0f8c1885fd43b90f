"""Settings of a run and of a sweep: a configuration with every value resolved, and the models that it names."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from vl2v_client.config.presets import freezes_half, published_student
from vl2v_client.config.run import RunConfig, StudentConfig
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.core.values import TeacherModel
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.file_contents import stamp_of
from vl2v_client.runs.config_record import CONFIG_FORMAT
from vl2v_client.runs.resolution import resolve_run, run_choice
from vl2v_client.student.loss.extension import extended
from vl2v_client.student.loss.methods import ERM, METHODS, WHITE_BOX
from vl2v_client.student.model.network import check_cut, half_of
from vl2v_client.student.model.spec import StudentSpec, resolve_student
from vl2v_client.student.train.devices import resolve_device
from vl2v_client.student.train.metrics_log import check_event_files
from vl2v_contract.identity import sha256_hex

ERM_LEARNING_RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""ERM's learning rates over the distill stage's; the choice climbs from the middle."""

_TEACHER_FACTS = ("id", "ledger_id", "weights_sha", "precision", "preprocessing_id", "image_size")
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class RunSettings:
    """A run, before its teacher is asked.

    Attributes:
        config: Resolved configuration.
        student: Model that is trained.
        tower: The local teacher's image tower, which white-box methods train; `None` without such a method.
        config_format: Format of `config.json`, which says at which size views are rendered; see `runs.run_folder`.
        skipped: Images that are left out since they cannot be used, by path below the data set; `None` if they are
            still to be found, should the run leave them out.
    """

    config: RunConfig
    student: StudentSpec
    tower: StudentSpec | None = None
    config_format: int = CONFIG_FORMAT
    skipped: tuple[str, ...] | None = None

    @property
    def training(self) -> TrainingConfig:
        """Hyper-parameters of training."""
        return self.config.training

    @cached_property
    def choice(self) -> QueryChoice:
        """What decides the run's queries; image queries only if one of its methods reads their answers."""
        return replace(run_choice(self.config), skipped=self.skipped)

    @property
    def erm_learning_rates(self) -> tuple[float, ...]:
        """Grid that source validation climbs to choose ERM's learning rate."""
        return tuple(self.training.distill_learning_rate * factor for factor in ERM_LEARNING_RATE_FACTORS)

    @property
    def exported_student(self) -> StudentSpec:
        """The model that the exported method trains."""
        return self.tower if self.training.method in WHITE_BOX and self.tower is not None else self.student

    def with_method(self, method: str, *, target_domain: str | None, seed: int) -> "RunSettings":
        """Return the settings of one run of a sweep, which exports its method; the seed of split and views stays."""
        data = self.config.data.replace(target_domain=target_domain)
        training = self.training.replace(method=method, baselines=(), seed=seed, probe=False)
        return replace(self, config=self.config.replace(data=data, training=training))

    def to_json(self, teacher: TeacherModel | None) -> dict[str, Any]:
        """Return the record that `config.json` keeps; a run folder belongs to exactly one.

        Without a teacher, which is still to be met, the record has none.
        """
        config = {group: getattr(self.config, group).result_options() for group in ("data", "purchase", "training")}
        config["data"]["root"] = str(self.choice.data.resolve())
        if self.skipped:
            config["data"]["skipped"] = list(self.skipped)
        if self.config.purchase.select is None:
            config["purchase"]["max_queries"] = None  # a cap, which decides nothing
        if not self.training.extend:
            del config["training"]["extend"]
        method = extended(METHODS[self.training.method](self.training), self.training)
        met = {} if teacher is None else {"teacher": {name: getattr(teacher, name) for name in _TEACHER_FACTS}}
        return {
            "format": self.config_format,
            **config,
            "stages": [asdict(stage) for stage in method.stages],
            "student": self.exported_student.to_json(),
            "erm_learning_rates": list(self.erm_learning_rates) if ERM in self.training.methods else [],
            **met,
        }


def settle(
    config: RunConfig,
    tower: Callable[[], StudentSpec | None] = lambda: None,
    before: Mapping[str, Any] | None = None,
) -> RunSettings:
    """Resolve a configuration and refuse what cannot be run or would change nothing.

    Args:
        config: The run as somebody described it.
        tower: Describes the local teacher's image tower; called if a method trains it.
        before: Options of the run that goes on, from `runs.run_folder.options_of_before`.

    Raises:
        UsageError: Options contradict each other, one of them changes nothing in this run, there is no such device, a
            package is missing, or the student cannot be cut where it shall be frozen.
        DataError: The student's weights file cannot be read.
    """
    resolved = resolve_run(config, before)
    resolve_device(resolved.training.device)
    check_event_files(resolved.training.tensorboard)
    settings = RunSettings(resolved, choose_student(resolved.student, resolved.training.preset))
    if not WHITE_BOX.isdisjoint(settings.training.methods):
        settings = replace(settings, tower=tower())
    elif freezes_half(resolved):
        training = settings.training.replace(freeze_until=half_of(settings.student))
        return replace(settings, config=resolved.replace(training=training))
    check_cut(resolved.student.name, settings.student, settings.training.freeze_until)
    if settings.tower is not None:
        check_cut("the local teacher's image tower", settings.tower, settings.training.freeze_until)
    return settings


def choose_student(student: StudentConfig, preset: str) -> StudentSpec:
    """Return the student with the preset's weights and normalisation.

    Raises:
        UsageError: The preset has no such student, or as `student.model.spec.resolve_student`.
        DataError: The weights file cannot be read.
    """
    name, paper = student.name, preset == "paper"
    if paper and student.weights is None and "." not in name:
        name = f"{name}.{published_student(name).tag}"
    spec = resolve_student(name, weights=student.weights, size=student.size)
    keep = not paper if student.own_normalisation is None else student.own_normalisation
    return spec if keep else replace(spec, input=replace(spec.input, mean=IMAGENET_MEAN, std=IMAGENET_STD))


@dataclass(frozen=True)
class SweepSettings:
    """What a sweep runs.

    Attributes:
        run: Settings of each run; its target domain, method and training seed are replaced. The seed of split and
            views stays, so that one purchase serves all.
        targets: Domains to hold out in turn.
        seeds: Seeds of the trainings.
        methods: Keys of `student.loss.methods.METHODS`.
    """

    run: RunSettings
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    methods: tuple[str, ...]

    def describe_views(self) -> str:
        """Return how many views there are, and how they are chosen, as words."""
        choice = self.run.choice
        if self.run.config.purchase.online:
            return f"fresh at every step, {choice.recipe}"
        further = "" if choice.rendered_views == choice.views else f", {choice.views} of them asked about"
        return f"{choice.rendered_views}{further}, {choice.recipe}"

    def to_json(self, teacher: TeacherModel | None, dataset: DomainDataset) -> dict[str, Any]:
        """Return what all runs share; more targets, seeds and methods may be added to a sweep's folder later.

        The data set's files by name and size are a part of it: another file would split its domain anew.
        """
        shared = self.run.to_json(teacher)
        del shared["stages"], shared["student"], shared["erm_learning_rates"], shared["data"]["target_domain"]
        del shared["training"]["seed"], shared["training"]["method"], shared["training"]["baselines"]
        sizes = ((one.path, stamp_of(one.path).size_bytes) for one in dataset.samples)
        files = sorted(f"{path.relative_to(dataset.root)} {size_bytes}" for path, size_bytes in sizes)
        files_sha = sha256_hex("\n".join(files).encode())
        return {"sweep": True, **shared, "student": self.run.student.to_json(), "files_sha": files_sha}


def settle_sweep(
    config: RunConfig,
    targets: tuple[str, ...],
    seeds: tuple[int, ...],
    methods: tuple[str, ...],
    tower: Callable[[], StudentSpec | None] = lambda: None,
    before: Mapping[str, Any] | None = None,
) -> SweepSettings:
    """Resolve a sweep and refuse what cannot be run.

    Args:
        config: Configuration of each run.
        targets: Domains to hold out in turn; empty is all.
        seeds: Seeds of the trainings.
        methods: Keys of `student.loss.methods.METHODS`.
        tower: Description of the local teacher's image tower, as in `runs.settings.settle`.
        before: Options of the sweep that goes on, likewise.

    Raises:
        UsageError: Something is named twice or not at all, the data set has no domains, or as `settle`.
    """
    for what, values in (("target domain", targets), ("seed", seeds), ("method", methods)):
        if len(set(values)) < len(values):
            raise UsageError(f"a {what} is named twice in {', '.join(map(str, values))}: name each once")
    if config.training.extend:
        raise UsageError("training.extend goes on with one run, and a sweep has many: leave it out")
    if not seeds or not methods:
        raise UsageError("a sweep needs at least one seed and one method")
    if config.data.seed is None:
        config = config.replace(data=config.data.replace(seed=0))
    *others, last = methods
    training = config.training.replace(method=last, baselines=tuple(others))
    run = settle(config.replace(training=training), tower, before)  # all methods at once, so that each is checked
    dataset = open_dataset(run.choice.data)
    if not dataset.has_domains:
        raise UsageError(f"{dataset.root} has no domains to leave out: give a data set of domain/class/file")
    for target in targets:
        dataset.source_domains(target)  # it names the domains that there are
    return SweepSettings(run, targets or dataset.domains, seeds, methods)
