"""What a stage leaves: its score on the source domains' hold-out, which alone selects, and its checkpoint.

A checkpoint is one file per stage, written whole or not at all, and refused by any other run.
"""

import hashlib
import json
import math
import pickle  # nosec B403 # for its error
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vl2v_client.core.errors import CacheError, Diverged, RunError
from vl2v_client.core.files import replacing
from vl2v_client.core.progress import StageEstimate
from vl2v_client.student.loss.first_version import as_first_named
from vl2v_client.student.loss.methods import Method, Stage
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.train.training_run import TrainingRun
from vl2v_client.teacher.stored_vectors import StoredVectors


@dataclass(frozen=True, slots=True)
class SourceScore:
    """A model on source validation; every domain counts alike, as in DomainBed.

    Attributes:
        accuracy: Mean of the domains' accuracies, 0 to 1.
        loss: Mean of the domains' cross-entropies; it drives SWAD.
        by_domain: Accuracy of each.
    """

    accuracy: float
    loss: float
    by_domain: dict[str, float]

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: accuracy, then a lower loss."""
        return self.accuracy, -self.loss


def score(logits: Tensor, labels: Tensor, domains: Sequence[str]) -> SourceScore:
    """Score logits `[N, C]` against labels `[N]` of the domains `[N]`."""
    losses = functional.cross_entropy(logits.double(), labels, reduction="none")
    right = (logits.argmax(dim=-1) == labels).double()
    accuracies, means = {}, []
    for domain in sorted(set(domains)):
        rows = torch.tensor([name == domain for name in domains], device=logits.device)
        accuracies[domain] = float(right[rows].mean())
        means.append(float(losses[rows].mean()))
    return SourceScore(sum(accuracies.values()) / len(accuracies), sum(means) / len(means), accuracies)


@dataclass(frozen=True)
class StageResult:
    """How a stage went.

    Attributes:
        steps: Steps taken; fewer than asked for if SWAD's valley died.
        best_step: Steps taken at the best evaluation on source validation.
        swad_steps: First and last step of SWAD's average; of the last segment, if no valley opened.
    """

    steps: int
    best_step: int
    swad_steps: tuple[int, int]


@dataclass(frozen=True)
class TrainingResult:
    """A trained student.

    Attributes:
        classifier: Student with the final weights of its last stage, and its head.
        validation: Score of exactly those weights on source validation.
        history: One row per evaluation, as in `metrics.jsonl`.
        interpolation: WiSE-FT's share of the final weights, chosen on source validation; `None` without it.
        by_weights: Accuracy on source validation of the `swad`, `best` and `last` weights of the last stage.
        estimate: What the last stage that trains the backbone was said to take; `None` if it was too short for a trial.
        logits: What the final weights say of source validation, `[M, C]`; `None` where the last bits may be others when
            it is asked again.
    """

    method: Method
    classifier: StudentClassifier
    validation: SourceScore
    stages: tuple[StageResult, ...]
    history: tuple[Mapping[str, Any], ...]
    interpolation: float | None = None
    by_weights: Mapping[str, float] = field(default_factory=dict)
    estimate: StageEstimate | None = None
    logits: NDArray[np.float32] | None = None


def choose_learning_rate(
    grid: Sequence[float], train: Callable[[float], TrainingResult]
) -> tuple[float, TrainingResult]:
    """Climb from the middle of the grid, down or up, to what source validation likes better than both neighbours.

    Takes the learning rates in order, and a whole run at one of them: same data, views and steps each time.

    Raises:
        Diverged: At the middle rate and at both of its neighbours.
    """

    @cache
    def attempt(place: int) -> TrainingResult | Diverged:
        try:
            return train(grid[place])
        except Diverged as error:
            return error

    def rank(place: int) -> tuple[float, float]:
        run = attempt(place)
        return (-math.inf, -math.inf) if isinstance(run, Diverged) else run.validation.rank

    best = len(grid) // 2
    for side in (-1, 1):
        while 0 <= best + side < len(grid) and rank(best) < rank(best + side):
            best += side
    chosen = attempt(best)
    if isinstance(chosen, Diverged):
        raise chosen
    return grid[best], chosen


def choose_interpolation(grid: Sequence[float], score_at: Callable[[float], SourceScore]) -> float:
    """Return the place in the grid that source validation likes best; of equals, the first."""
    return max(grid, key=lambda share: score_at(share).rank)


_FORMAT = 1


@dataclass(frozen=True)
class StageCheckpoint:
    """Where a stage keeps what it needs to go on after a crash.

    Attributes:
        path: `None` keeps nothing.
        fingerprint: Names the stage, its settings, data and first weights; another one cannot load the file.
        former: Gives the name that earlier versions knew it by, whose files are loaded too.
    """

    path: Path | None
    fingerprint: str
    former: Callable[[], str] = str

    def save(self, state: dict[str, Any]) -> None:
        """Write `state` (tensors and plain values) so that a crash leaves the old file or the new one.

        Raises:
            CacheError: The disk is full or the folder cannot be written.
        """
        if self.path is None:
            return
        try:
            with replacing(self.path) as file:
                torch.save({"format": _FORMAT, "fingerprint": self.fingerprint, "state": state}, file)
        except (OSError, RuntimeError) as error:  # torch reports a failed write as RuntimeError
            raise CacheError(f"{self.path} cannot be written ({error}): make room, then run again") from error

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """Return the state that was saved, with its tensors on `device`; `None` if there is none.

        Raises:
            RunError: The file is damaged, or belongs to a run with other settings or data.
        """
        if self.path is None or not self.path.exists():
            return None
        try:
            stored = torch.load(self.path, map_location=device, weights_only=True)
            format_, fingerprint, state = stored["format"], stored["fingerprint"], stored["state"]
        except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
            raise RunError(f"{self.path} is damaged: remove it to start its stage again") from error
        if format_ != _FORMAT or (fingerprint != self.fingerprint and fingerprint != self.former()):
            raise RunError(
                f"{self.path} belongs to a run with other settings or data: choose another output folder, or remove it"
            )
        return dict(state)


_NOT_OF_A_STAGE = ("preset", "method", "baselines", "train_views", "extend")
"""Options of training that a stage's own fields and data stand for."""


def stage_fingerprint(run: TrainingRun, stage: Stage, *, by_place: bool = False) -> str:
    """Return the SHA-256 of all that decides a stage's result: settings, data, targets and the weights at its start.

    Args:
        run: The run, as the stage finds it.
        stage: The stage.
        by_place: Whether images are named by path and time, as in earlier versions, in place of their content.
    """
    settings = {name: value for name, value in run.config.result_options().items() if name not in _NOT_OF_A_STAGE}
    data = run.data
    described = [
        as_first_named(asdict(stage)),
        as_first_named(settings),
        asdict(run.classifier.input),
        data.train.pixels.shape,
        data.train.domains,
        *(views.place if by_place else views.of for views in (data.train, data.validation)),
        *([] if data.fresh is None else [data.fresh.of]),
    ]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for array in _arrays(run):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _arrays(run: TrainingRun) -> Iterator[NDArray[Any]]:
    """Yield the numbers that decide a stage's result."""
    data = run.data
    yield from (data.train.labels, data.validation.labels)
    if data.targets is not None:
        vectors = data.targets.vectors  # some at a time, if they are stored
        yield from vectors.blocks() if isinstance(vectors, StoredVectors) else (vectors,)
        yield data.targets.weights
    yield from (head.matrix for head in (run.classifier.head, data.teacher_head) if head is not None)
    yield from (value.cpu().numpy() for value in run.classifier.student.state_dict().values())
