"""What a run's student says of images before it has learnt anything of them, kept beside the cache for later runs."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vl2v_client.cache.feature_store import FeatureFolder, FeatureStore
from vl2v_client.cache.memo import RunCache
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import Sample, child_seed
from vl2v_client.data.view_pixels import canonical_pixels
from vl2v_client.data.views import View, canonical_view
from vl2v_client.planning.queries import ImageQuery, view_keys
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.runs.settings import RunSettings
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.model.network import build_student
from vl2v_client.student.train.devices import resolve_device
from vl2v_client.student.train.frozen_features import FrozenFeatures
from vl2v_client.student.train.training_data import LabelledViews, labelled_views


def view_names(samples: Sequence[Sample], views: Sequence[Sequence[View]], size: int, cache: RunCache) -> list[bytes]:
    """Return a name of the pixels of each view at one size, an image's views side by side."""
    queries = [ImageQuery(sample, view) for sample, of_one in zip(samples, views, strict=True) for view in of_one]
    return view_keys(queries, cache, size=size)


def whole_images(samples: Sequence[Sample], size: int, cache: RunCache) -> LabelledViews:
    """Return the canonical view of each image, `[N, 1, S, S, 3]`, with its name.

    Raises:
        DataError: An image is missing or is none.
    """
    names = view_names(samples, [(canonical_view(),)] * len(samples), size, cache)
    return labelled_views(canonical_pixels(samples, size), samples, names)


def run_features(
    settings: RunSettings, planned: PlannedRun, cache: RunCache, progress: Progress
) -> NDArray[np.float32]:
    """Return the features `[N, F]` of the canonical views of a run's training images, in the order of the split."""
    images = whole_images(planned.queries.split.train, settings.student.input.size, cache)
    return frozen_features(settings, images, 1, cache.features, progress)


def frozen_features(
    settings: RunSettings,
    views: LabelledViews,
    count: int,
    store: FeatureStore | FeatureFolder | None,
    progress: Progress,
) -> NDArray[np.float32]:
    """Return what the run's student, frozen, says of the first `count` views of each image, `[N * count, F]`.

    They lie in memory, 4 bytes a number, while the store keeps no more of them than its bound: who selects or imputes
    compares them all. The seed of the run draws the weights of a student without pretrained ones.

    Raises:
        DataError: An image is broken, or the student's weights cannot be had.
    """
    spec, seed = settings.student, child_seed(settings.choice.seed, "initial weights")
    student = build_student(spec, outputs=1, seed=seed).to(resolve_device(settings.training.device))
    frozen = FrozenFeatures(StudentClassifier(student, spec.input, None), settings.training, store)
    features, done = np.zeros((len(views) * count, spec.features), dtype=np.float32), 0
    for part in frozen.parts(views.first(count), views.first_keys(count)):
        features[done : done + len(part)] = part.float().cpu().numpy()
        done += len(part)
        progress("student features", done, len(features))
    return features
