"""Features of the frozen student: what selecting and imputing see of an image before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import RGBImage, Sample, child_seed
from vl2v_client.data.views import canonical_view, load_rgb, render_view
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.runs.settings import RunSettings
from vl2v_client.student.model.inputs import student_input
from vl2v_client.student.model.network import build_student
from vl2v_client.student.model.spec import StudentSpec
from vl2v_client.student.train.devices import resolve_device

_BATCH_SIZE = 128


def run_features(settings: RunSettings, planned: PlannedRun, progress: Progress) -> NDArray[np.float32]:
    """Return the features `[N, F]` of a run's training images, in the order of the split; see `canonical_features`."""
    return canonical_features(
        settings.student,
        planned.queries.split.train,
        planned.plan.teacher.image_size,
        seed=settings.choice.seed,
        device=settings.training.device,
        progress=progress,
    )


def canonical_features(
    spec: StudentSpec,
    samples: Sequence[Sample],
    size: int,
    *,
    seed: int,
    device: str = "auto",
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Return the frozen student's features of the images' canonical views, rendered on the way and kept nowhere.

    Args:
        spec: Spec of the student.
        samples: `N` images.
        size: The teacher's input size.
        seed: Seed of the run, for a student without pretrained weights.
        device: Device, as in `student.train.devices.resolve_device`.
        progress: Gets every batch.

    Returns:
        `[N, F]`.

    Raises:
        DataError: An image is broken, or the student's weights cannot be had.
    """

    def render(sample: Sample) -> RGBImage:
        return render_view(load_rgb(sample.path), canonical_view(), size)

    def batches() -> Iterator[NDArray[np.uint8]]:
        with ThreadPoolExecutor() as pool:
            for start in range(0, len(samples), _BATCH_SIZE):
                yield np.stack(list(pool.map(render, samples[start : start + _BATCH_SIZE])))

    return _features(spec, batches(), len(samples), seed, device, progress)


def rendered_features(
    spec: StudentSpec,
    pixels: NDArray[np.uint8],
    views: int,
    *,
    seed: int,
    device: str = "auto",
    progress: Progress = silent,
) -> NDArray[np.float32]:
    """Return features `[N, A, F]` of the first `A` of rendered views `[N, K, S, S, 3]`; see `canonical_features`."""
    samples = len(pixels)
    places = np.arange(samples * views)
    cuts = (places[start : start + _BATCH_SIZE] for start in range(0, len(places), _BATCH_SIZE))
    batches = (pixels[cut // views, cut % views] for cut in cuts)
    return _features(spec, batches, len(places), seed, device, progress).reshape(samples, views, -1)


@torch.no_grad()
def _features(
    spec: StudentSpec, batches: Iterator[NDArray[np.uint8]], total: int, seed: int, device: str, progress: Progress
) -> NDArray[np.float32]:
    place = resolve_device(device)
    backbone = build_student(spec, outputs=1, seed=child_seed(seed, "initial weights")).backbone.to(place).eval()
    features = np.zeros((total, spec.features), dtype=np.float32)
    done = 0
    for pixels in batches:
        features[done : done + len(pixels)] = backbone(student_input(pixels, spec.input, place)).float().cpu().numpy()
        done += len(pixels)
        progress("student features", done, total)
    return features
