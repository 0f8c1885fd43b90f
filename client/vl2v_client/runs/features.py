"""Features of the frozen student: what selecting and imputing see of an image before anything is trained."""

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import PixelSource, child_seed
from vl2v_client.data.view_pixels import ViewSequence, canonical_pixels
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.runs.settings import RunSettings
from vl2v_client.student.model.classifier import student_input
from vl2v_client.student.model.network import build_student
from vl2v_client.student.model.spec import StudentSpec
from vl2v_client.student.train.devices import resolve_device

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
