"""Classifiers made of the source images' bought vectors, and what they say of the images of the unseen domain.

They are E3 and E5 of the first table of Addepalli et al., CVPR 2024, arXiv 2310.08255. They cost nothing once a run's
first views and its teacher's row are bought: the cache holds the canonical vectors of sources and unseen domain.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from accuracy_arms import CLASS_MEANS, NEAREST
from numpy.typing import NDArray

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.views import canonical_view
from vl2v_client.evaluation.accuracy import ImagePrediction
from vl2v_client.planning.queries import ImageQuery
from vl2v_client.planning.query_plan import make_plan
from vl2v_client.runs.run_folder import open_run_folder
from vl2v_client.runs.run_images import read_images, recorded_config
from vl2v_client.teacher.text_classifier import unit_rows

Vectors = NDArray[np.float32]
Classes = NDArray[np.int64]

NEIGHBOURS = 10


def by_class_means(images: Vectors, sources: Vectors, labels: Classes) -> Classes:
    """The class whose mean source vector has the greatest cosine to each image.

    Args:
        images: `[N, D]` unit vectors to classify.
        sources: `[M, D]` unit vectors of all source domains.
        labels: `[M]` of the sources.

    Returns:
        `[N]`; a class without a source is never chosen.
    """
    classes = np.unique(labels)
    means = unit_rows(np.stack([sources[labels == each].mean(axis=0) for each in classes]))
    return classes[(images @ means.T).argmax(axis=1)]


def by_nearest(images: Vectors, sources: Vectors, labels: Classes, count: int = NEIGHBOURS) -> Classes:
    """The class with the greatest cosine of an image to the mean of the class's `count` sources nearest to the image.

    Arguments and result are those of `by_class_means`. A class of fewer sources is represented by all of them.
    """
    classes = np.unique(labels)
    scores = np.stack([_cosine_to_nearest(images, sources[labels == each], count) for each in classes], axis=1)
    return classes[scores.argmax(axis=1)]


def _cosine_to_nearest(images: Vectors, sources: Vectors, count: int) -> Vectors:
    """`[N]`: the cosine of `[N, D]` to the mean of the nearest of `[M, D]`, whose length their products give."""
    cosines, kept = images @ sources.T, min(count, len(sources))
    nearest = np.argpartition(-cosines, kept - 1, axis=1)[:, :kept]
    products = (sources @ sources.T)[nearest[:, :, None], nearest[:, None, :]]
    lengths = np.sqrt(products.mean(axis=(1, 2)).clip(min=1e-12))
    scores: Vectors = np.take_along_axis(cosines, nearest, axis=1).mean(axis=1) / lengths
    return scores


CLASSIFIERS = {CLASS_MEANS: by_class_means, NEAREST: by_nearest}
"""By row."""


def vector_predictions(folder: Path, environment: Mapping[str, str]) -> list[ImagePrediction]:
    """What each of them says of each image of a run's unseen domain, without a probability; buys nothing.

    Args:
        folder: of a finished run.
        environment: names the cache and the vendor of its purchases.

    Raises:
        SystemExit: vectors are missing.
    """
    run = open_run_folder(folder)
    record, dataset = read_images(run), open_dataset(recorded_config(run).root)
    found = {sample.path.relative_to(dataset.root).as_posix(): sample for sample in dataset.samples}
    names = [*record.train, *record.target]
    with EmbeddingCache(Path(environment["VL2V_CACHE"])) as cache:
        teacher = cache.vendors.teacher(environment["VL2V_VENDOR_URL"], None)
        if teacher is None:
            raise SystemExit("the vendor is not known to the cache: run `vl2v-client evaluate --teacher` first")
        plan = make_plan([ImageQuery(found[name], canonical_view()) for name in names], [], teacher, cache)
        if plan.missing:
            raise SystemExit(
                f"{folder} lacks {len(plan.missing)} canonical vectors: buy at least one view of each image, and "
                "`vl2v-client evaluate --teacher`"
            )
        vectors = cache.get_many(plan.image_keys)
    units = unit_rows(np.stack([vectors[key] for key in plan.image_keys]))
    labels = np.array([found[name].class_index for name in names], dtype=np.int64)
    seen = len(record.train)
    return [
        ImagePrediction(row, name, dataset.class_names[label], dataset.class_names[predicted], math.nan)
        for row, classify in CLASSIFIERS.items()
        for name, label, predicted in zip(
            names[seen:], labels[seen:], classify(units[seen:], units[:seen], labels[:seen]), strict=True
        )
    ]
