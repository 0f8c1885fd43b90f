"""What a run is asked to do, resolved: every value that decides its result, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from vl2v_client.core.errors import UsageError
from vl2v_client.core.values import TeacherModel
from vl2v_client.recipes.queries import QueryChoice
from vl2v_client.student.spec import TINY, StudentSpec
from vl2v_client.student.stages import WITHOUT_EFFECT, TrainingConfig

ERM = "erm"
BASELINES = (ERM,)

PUBLISHED_TRAINING = TrainingConfig()
"""The published hyper-parameters, for a student of the usual size."""

TINY_TRAINING = TrainingConfig(
    align_steps=100,
    distill_steps=800,
    align_learning_rate=1e-2,
    distill_learning_rate=3e-4,
    batch_size=11,
    evaluate_every=50,
)
"""For the student that ships with the package; chosen on development styles alone, see `docs/data/shapes.md`."""

ERM_LEARNING_RATE_FACTORS = (1.0, 3.0, 10.0)
"""ERM is trained at the distill stage's learning rate times each of these; source validation chooses."""


@dataclass(frozen=True)
class RunSettings:
    """A run, before the vendor is asked.

    Attributes:
        choice: data set, target domain, views, seed.
        student: what is trained.
        training: hyper-parameters.
        baselines: trained beside VL2V-ADiP on the same views, to compare with.
    """

    choice: QueryChoice
    student: StudentSpec
    training: TrainingConfig
    baselines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        unknown = sorted(set(self.baselines) - set(BASELINES))
        if unknown:
            raise UsageError(f"no baseline {unknown[0]!r}; there is: {', '.join(BASELINES)}")

    @property
    def erm_learning_rates(self) -> tuple[float, ...]:
        """The grid that source validation chooses ERM's learning rate from."""
        return tuple(self.training.distill_learning_rate * factor for factor in ERM_LEARNING_RATE_FACTORS)

    def to_json(self, teacher: TeacherModel) -> dict[str, Any]:
        """The resolved configuration as `config.json` keeps it; a run folder belongs to exactly one."""
        choice = self.choice
        return {
            "format": 1,
            "data": str(choice.data.resolve()),
            "target_domain": choice.target_domain,
            "views": choice.views,
            "seed": choice.seed,
            "prompt_templates": list(choice.prompts.templates),
            "student": self.student.to_json(),
            "training": {name: value for name, value in asdict(self.training).items() if name not in WITHOUT_EFFECT},
            "baselines": list(self.baselines),
            "erm_learning_rates": list(self.erm_learning_rates) if ERM in self.baselines else [],
            "teacher": {
                "id": teacher.id,
                "ledger_id": teacher.ledger_id,
                "weights_sha": teacher.weights_sha,
                "precision": teacher.precision,
                "preprocessing_id": teacher.preprocessing_id,
                "image_size": teacher.image_size,
            },
        }


def training_for(student_name: str, **overrides: Any) -> TrainingConfig:
    """The student's own hyper-parameters, with those of `overrides` that are not None in their place."""
    base = TINY_TRAINING if student_name == TINY else PUBLISHED_TRAINING
    return replace(base, **{name: value for name, value in overrides.items() if value is not None})
