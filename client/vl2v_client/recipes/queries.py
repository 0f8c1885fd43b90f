"""From a data set to what the teacher is asked: the training images' views, and the class prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import Sample
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.splits import Split, split
from vl2v_client.data.views import View, views_for
from vl2v_client.planning.contents import read_files
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.teacher.prompts import PromptTemplateSet

DEFAULT_VIEWS = 4


@dataclass(frozen=True, slots=True)
class QueryChoice:
    """What decides a run's queries.

    Attributes:
        data: the data set's folder.
        target_domain: held out and never bought; None trains on everything.
        views: of each training image.
        seed: of the hold-out and the views.
        prompts: templates that the class names are put in.
    """

    data: Path
    target_domain: str | None = None
    views: int = DEFAULT_VIEWS
    seed: int = 0
    prompts: PromptTemplateSet = field(default_factory=PromptTemplateSet)


@dataclass(frozen=True)
class RunQueries:
    """A data set, split, with the queries that its training images and classes make.

    Attributes:
        views: `K` views for each of the `N` training images.
        images: one query per view, `N * K`, an image's views side by side.
        texts: one query per class and template, `C * T`, a class's templates side by side.
    """

    dataset: DomainDataset
    split: Split
    views: tuple[tuple[View, ...], ...]
    images: tuple[ImageQuery, ...]
    texts: tuple[TextQuery, ...]


def collect_queries(choice: QueryChoice, cache: EmbeddingCache, *, progress: Progress = silent) -> RunQueries:
    """Read the data set and name what a run on it asks. The target domain's images are not opened.

    Raises:
        DataError: the data set or an image in it cannot be used, or there is no such target domain.
    """
    dataset = open_dataset(choice.data)
    parts = split(dataset, target_domain=choice.target_domain, seed=choice.seed)
    views = draw_views(parts.train, cache, count=choice.views, seed=choice.seed, progress=progress)
    images = tuple(
        ImageQuery(sample, view) for sample, of_one in zip(parts.train, views, strict=True) for view in of_one
    )
    texts = tuple(TextQuery(text) for texts in choice.prompts.prompts(dataset.class_names) for text in texts)
    return RunQueries(dataset, parts, views, images, texts)


def draw_views(
    samples: Sequence[Sample], cache: EmbeddingCache, *, count: int, seed: int, progress: Progress = silent
) -> tuple[tuple[View, ...], ...]:
    """`count` views of each image, drawn from its content, so that a copy or a renamed file asks nothing new."""
    contents = read_files((sample.path for sample in samples), cache, progress=progress)
    files = (contents[sample.path] for sample in samples)
    return tuple(tuple(views_for(file.file_sha, (file.width, file.height), count, seed)) for file in files)
