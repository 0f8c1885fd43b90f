"""What a run is asked to do, resolved: every value that decides its result, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from vl2v_client.core.errors import UsageError
from vl2v_client.core.values import TeacherModel
from vl2v_client.planning.spending import Spending
from vl2v_client.recipes.preset_views import DEFAULT_PRESET
from vl2v_client.recipes.queries import QueryChoice
from vl2v_client.recipes.run_record import CONFIG_FORMAT
from vl2v_client.student.methods import ERM, METHODS, VL2V_ADIP, asks_about_images
from vl2v_client.student.spec import StudentSpec
from vl2v_client.student.stages import EXECUTION_FIELDS, TrainingConfig
from vl2v_client.teacher.imputation import NO_IMPUTATION, check_imputation

ERM_LEARNING_RATE_FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""ERM's learning rates over the distill stage's; the choice climbs from the middle."""


@dataclass(frozen=True)
class RunSettings:
    """A run, before the vendor is asked.

    Attributes:
        choice: data set, target domain, views, seed.
        student: what is trained.
        training: hyper-parameters.
        method: of the student that is exported, a key of `student.methods.METHODS`.
        baselines: other methods, trained beside it on the same views to compare with.
        preset: where the hyper-parameters come from that nobody named, a key of `recipes.preset_views.PRESETS`.
        spending: how many queries it may use, and what chooses them.
        impute: targets of views that are not bought, a name of `teacher.imputation.IMPUTATIONS`.
        local: the teacher is on this machine and not a vendor's.
        tower: its image tower, which white-box methods train; `None` without such a method.
        online: the local teacher sees fresh views at every step, as published, in place of stored ones.
    """

    choice: QueryChoice
    student: StudentSpec
    training: TrainingConfig
    method: str = VL2V_ADIP
    baselines: tuple[str, ...] = ()
    preset: str = DEFAULT_PRESET
    spending: Spending = field(default_factory=Spending)
    impute: str = NO_IMPUTATION
    local: bool = False
    tower: StudentSpec | None = None
    online: bool = False

    def __post_init__(self) -> None:
        check_imputation(self.impute)
        for name in self.methods:
            if name not in METHODS:
                raise UsageError(f"no method {name!r}; there are: {', '.join(METHODS)}")
            if METHODS[name](self.training).white_box and self.tower is None:
                raise UsageError(
                    f"{name} trains the teacher's own image tower: it needs the teacher's weights here; "
                    "give a --local-teacher"
                )
        if len(set(self.methods)) < len(self.methods):
            raise UsageError(f"a method is named twice in {', '.join(self.methods)}: name each once")
        if self.online and not self.local:
            raise UsageError("--online asks about every view of every step: it needs a --local-teacher, not a vendor")
        if self.online and self.choice.train_views is not None:
            raise UsageError("--online trains on fresh views at every step: leave --train-views out")
        if self.spending.select is not None or self.impute != NO_IMPUTATION:
            self._check_choice()

    def _check_choice(self) -> None:
        """Refuse a choice among images where none is asked about."""
        if self.local:
            raise UsageError("a local teacher answers for free: leave --select and --impute out")
        if not self.choice.views:
            raise UsageError("--views 0 asks about no image: leave --select and --impute out")
        if not self.needs_images:
            raise UsageError(
                f"no image embedding is read by {', '.join(self.methods)} with an image weight of "
                f"{self.training.image_weight:g}: leave --select and --impute out"
            )

    @property
    def methods(self) -> tuple[str, ...]:
        """All that are trained, the exported one last."""
        return (*self.baselines, self.method)

    def student_of(self, name: str) -> StudentSpec:
        """What a method trains."""
        white_box = METHODS[name](self.training).white_box
        return self.tower if white_box and self.tower is not None else self.student

    @property
    def needs_images(self) -> bool:
        """Whether any of the methods reads image embeddings; if none does, no image query is needed."""
        return any(asks_about_images(METHODS[name](self.training), self.training) for name in self.methods)

    @property
    def erm_learning_rates(self) -> tuple[float, ...]:
        """The grid that source validation climbs to choose ERM's learning rate."""
        return tuple(self.training.distill_learning_rate * factor for factor in ERM_LEARNING_RATE_FACTORS)

    def to_json(self, teacher: TeacherModel) -> dict[str, Any]:
        """The resolved configuration as `config.json` keeps it; a run folder belongs to exactly one."""
        choice = self.choice
        return {
            "format": CONFIG_FORMAT,
            "data": str(choice.data.resolve()),
            "target_domain": choice.target_domain,
            "views": choice.views,
            "train_views": choice.rendered_views,
            "view_recipe": choice.recipe,
            "seed": choice.seed,
            "spending": self.spending.to_json(),
            "impute": self.impute,
            "prompt_templates": list(choice.prompts.templates),
            "preset": self.preset,
            "method": self.method,
            "stages": [asdict(stage) for stage in METHODS[self.method](self.training).stages],
            "student": self.student_of(self.method).to_json(),
            "online": self.online,
            "training": {name: value for name, value in asdict(self.training).items() if name not in EXECUTION_FIELDS},
            "baselines": list(self.baselines),
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
