"""The fingerprint of a stage: a checkpoint is continued by the stage that wrote it alone."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v_client.student.loss.stages import Stage, as_first_named
from vl2v_client.student.train.feeds import TrainingRun

_NOT_OF_A_STAGE = ("preset", "method", "baselines", "train_views")
"""Options of training that a stage's own fields and data stand for."""


def stage_fingerprint(run: TrainingRun, stage: Stage) -> str:
    """Return the SHA-256 of all that decides a stage's result: settings, data, targets and the weights at its start."""
    settings = {name: value for name, value in run.config.result_options().items() if name not in _NOT_OF_A_STAGE}
    data = run.data
    described = [
        as_first_named(asdict(stage)),
        as_first_named(settings),
        asdict(run.classifier.input),
        data.train.pixels.shape,
        data.train.domains,
    ]
    described += [data.train.of, data.validation.of, *([] if data.fresh is None else [data.fresh.of])]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    arrays: list[NDArray[Any]] = [data.train.labels, data.validation.labels]
    arrays += [] if data.targets is None else [data.targets.vectors, data.targets.weights]
    arrays += [head.matrix for head in (run.classifier.head, data.teacher_head) if head is not None]
    arrays += [value.cpu().numpy() for value in run.classifier.student.state_dict().values()]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
