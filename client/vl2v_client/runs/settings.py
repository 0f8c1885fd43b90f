"""A run's settings: its configuration with every value resolved, and the models that they name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from vl2v_client.config.presets import published_student
from vl2v_client.config.run import RunConfig, StudentConfig
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.values import TeacherModel
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.runs.resolution import methods_of, resolve_run, run_choice
from vl2v_client.runs.run_record import CONFIG_FORMAT
from vl2v_client.student.loss.methods import ERM, METHODS, WHITE_BOX
from vl2v_client.student.model.spec import StudentSpec, resolve_student
from vl2v_client.student.train.devices import resolve_device

ERM_LEARNING_RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""ERM's learning rates over the distill stage's; the choice climbs from the middle."""

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class RunSettings:
    """A run, before its teacher is asked.

    Attributes:
        config: Resolved configuration.
        student: Model that is trained.
        tower: The local teacher's image tower, which white-box methods train; `None` without such a method.
    """

    config: RunConfig
    student: StudentSpec
    tower: StudentSpec | None = None

    @property
    def training(self) -> TrainingConfig:
        """Hyper-parameters of training."""
        return self.config.training

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of all methods that are trained, the exported one last."""
        return methods_of(self.training)

    @property
    def impute(self) -> str:
        """Name of the imputation of targets that are not bought."""
        return self.config.purchase.impute

    @property
    def online(self) -> bool:
        """Whether a local teacher sees fresh views at every step."""
        return self.config.purchase.online

    @cached_property
    def choice(self) -> QueryChoice:
        """What decides the run's queries; image queries only if one of its methods reads their answers."""
        return run_choice(self.config)

    @property
    def erm_learning_rates(self) -> tuple[float, ...]:
        """Grid that source validation climbs to choose ERM's learning rate."""
        return tuple(self.training.distill_learning_rate * factor for factor in ERM_LEARNING_RATE_FACTORS)

    def student_of(self, name: str) -> StudentSpec:
        """Return the model that a method trains."""
        return self.tower if name in WHITE_BOX and self.tower is not None else self.student

    def with_method(self, method: str, *, target_domain: str | None, seed: int) -> RunSettings:
        """Return the settings of one run of a sweep; the seed of split and views stays."""
        data = self.config.data.replace(target_domain=target_domain)
        training = self.training.replace(method=method, baselines=(), seed=seed)
        return replace(self, config=self.config.replace(data=data, training=training))

    def to_json(self, teacher: TeacherModel) -> dict[str, Any]:
        """Return the record that `config.json` keeps; a run folder belongs to exactly one."""
        config = {group: getattr(self.config, group).result_options() for group in ("data", "purchase", "training")}
        config["data"]["root"] = str(self.choice.data.resolve())
        if self.config.purchase.select is None:
            config["purchase"]["max_queries"] = None  # a cap, which decides nothing
        method = self.training.method
        return {
            "format": CONFIG_FORMAT,
            **config,
            "stages": [asdict(stage) for stage in METHODS[method](self.training).stages],
            "student": self.student_of(method).to_json(),
            "erm_learning_rates": list(self.erm_learning_rates) if ERM in self.methods else [],
            "teacher": {
                "id": teacher.id,
                "ledger_id": teacher.ledger_id,
                "weights_sha": teacher.weights_sha,
                "precision": teacher.precision,
                "preprocessing_id": teacher.preprocessing_id,
                "image_size": teacher.image_size,
            },
        }


def settle(config: RunConfig, tower: Callable[[], StudentSpec | None] = lambda: None) -> RunSettings:
    """Resolve a configuration and refuse what cannot be run or would change nothing.

    Args:
        config: The run as somebody described it.
        tower: Describes the local teacher's image tower; called if a method trains it.

    Raises:
        UsageError: Options contradict each other, one of them changes nothing in this run, or there is no such device.
        DataError: The student's weights file cannot be read.
    """
    resolved = resolve_run(config)
    resolve_device(resolved.training.device)
    student = choose_student(config.student, resolved.training.preset)
    settings = RunSettings(resolved, student)
    if WHITE_BOX.isdisjoint(settings.methods):
        return settings
    return replace(settings, tower=tower())


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
