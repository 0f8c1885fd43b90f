"""From a data set to what the teacher is asked: the training images' views, and the class prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import DEFAULT_VIEWS
from vl2v_client.core.progress import Progress, silent
from vl2v_client.data.class_names import check_class_names
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.splits import Split, split
from vl2v_client.data.views import STANDARD, View, views_for
from vl2v_client.planning.queries import ImageQuery, TextQuery, read_files
from vl2v_client.teacher.text_classifier import PromptTemplateSet


@dataclass(frozen=True, slots=True)
class QueryChoice:
    """What decides a run's queries.

    Attributes:
        data: The data set's folder.
        target_domain: Domain held out and never bought; None trains on everything.
        views: Views of each training image that the teacher is asked about.
        train_views: Views of each training image that are trained on, if more: the further ones borrow the target that
            their image's asked views have on average, at no query.
        seed: Seed of the hold-out and the views.
        prompts: Templates that the class names are put in.
        recipe: Choice of the views, a key of `data.views.VIEW_RECIPES`.
        ask_images: False for methods that read no image embedding: their views are rendered, and nothing is asked.
    """

    data: Path
    target_domain: str | None = None
    views: int = DEFAULT_VIEWS
    train_views: int | None = None
    seed: int = 0
    prompts: PromptTemplateSet = field(default_factory=PromptTemplateSet)
    recipe: str = STANDARD
    ask_images: bool = True

    @property
    def rendered_views(self) -> int:
        """How many views of each training image are rendered and trained on."""
        return self.views if self.train_views is None else self.train_views

    @property
    def asked_views(self) -> int:
        """How many views of each image the teacher is asked about: the first ones, beginning with the canonical."""
        return self.views if self.ask_images else 0


@dataclass(frozen=True)
class RunQueries:
    """A data set, split, with the queries that its training images and classes make.

    Attributes:
        views: `K` views for each of the `N` training images.
        asked_views: The first `A` of the `K` views of every image are asked about.
        images: One query for each of them, `N * A`, an image's views side by side.
        texts: One query per class and template, `C * T`, a class's templates side by side.
    """

    dataset: DomainDataset
    split: Split
    views: tuple[tuple[View, ...], ...]
    asked_views: int
    images: tuple[ImageQuery, ...]
    texts: tuple[TextQuery, ...]


def collect_queries(choice: QueryChoice, cache: EmbeddingCache, *, progress: Progress = silent) -> RunQueries:
    """Read the data set and name what a run on it asks. The target domain's images are not opened.

    Raises:
        DataError: The data set or an image in it cannot be used, or there is no such target domain.
    """
    dataset, seed, asked = open_dataset(choice.data), choice.seed, choice.asked_views
    parts = split(dataset, target_domain=choice.target_domain, seed=seed)
    contents = read_files((sample.path for sample in parts.train), cache, progress=progress)
    views = []
    for sample in parts.train:
        file = contents[sample.path]
        drawn = views_for(file.file_sha, (file.width, file.height), choice.rendered_views, seed, choice.recipe)
        views.append(tuple(drawn))
    images = tuple(
        ImageQuery(sample, view) for sample, of_one in zip(parts.train, views, strict=True) for view in of_one[:asked]
    )
    return RunQueries(dataset, parts, tuple(views), asked, images, text_queries(choice, dataset.class_names))


def text_queries(choice: QueryChoice, class_names: Sequence[str]) -> tuple[TextQuery, ...]:
    """Return the text queries of a run's classes; see `RunQueries.texts`.

    Raises:
        DataError: The classes have names that no student's card can hold.
    """
    check_class_names(class_names)
    return tuple(TextQuery(text) for texts in choice.prompts.prompts(class_names) for text in texts)
