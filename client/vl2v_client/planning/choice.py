"""From a data set to what the teacher is asked: the training images' views, and the class prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import DEFAULT_VIEWS, RunConfig
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import Sample
from vl2v_client.data.class_names import check_class_names
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.splits import Split, split
from vl2v_client.data.views import STANDARD, View, styled_views, view_recipe, views_for
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

    Raises:
        UsageError: There is no such recipe, or fewer views are trained on than asked about.
    """

    data: Path
    target_domain: str | None = None
    views: int = DEFAULT_VIEWS
    train_views: int | None = None
    seed: int = 0
    prompts: PromptTemplateSet = field(default_factory=PromptTemplateSet)
    recipe: str = STANDARD
    ask_images: bool = True

    def __post_init__(self) -> None:
        view_recipe(self.recipe)
        if self.train_views is not None and self.train_views < self.views:
            raise UsageError(
                f"training.train_views {self.train_views} is less than purchase.views {self.views}: all that is bought "
                "is used"
            )

    @property
    def rendered_views(self) -> int:
        """How many views of each training image are rendered and trained on."""
        return self.views if self.train_views is None else self.train_views

    @property
    def styled_views(self) -> tuple[int, ...]:
        """Which views are styled, the same of every image."""
        return styled_views(self.rendered_views, self.recipe)

    @property
    def asked_views(self) -> int:
        """How many views of each image the teacher is asked about: the first ones, beginning with the canonical."""
        return self.views if self.ask_images else 0


def query_choice(config: RunConfig) -> QueryChoice:
    """Return what decides the queries of a resolved configuration.

    Raises:
        UsageError: No data set is named, a prompt template is none, or views contradict each other.
    """
    data, purchase = config.data, config.purchase
    if data.root is None:
        raise UsageError("no data set is named: give data.root")
    if purchase.views is None or purchase.view_recipe is None or data.seed is None:
        raise ValueError("the configuration is not resolved")
    return QueryChoice(
        data.root,
        target_domain=data.target_domain,
        views=purchase.views,
        train_views=config.training.train_views,
        seed=data.seed,
        prompts=PromptTemplateSet(data.prompts),
        recipe=purchase.view_recipe,
    )


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
    dataset = open_dataset(choice.data)
    parts = split(dataset, target_domain=choice.target_domain, seed=choice.seed)
    views = draw_views(parts.train, cache, choice, progress=progress)
    asked = choice.asked_views
    images = tuple(
        ImageQuery(sample, view) for sample, of_one in zip(parts.train, views, strict=True) for view in of_one[:asked]
    )
    return RunQueries(dataset, parts, views, asked, images, text_queries(choice, dataset.class_names))


def text_queries(choice: QueryChoice, class_names: Sequence[str]) -> tuple[TextQuery, ...]:
    """Return the text queries of a run's classes; see `RunQueries.texts`.

    Raises:
        DataError: The classes have names that no student's card can hold.
    """
    check_class_names(class_names)
    return tuple(TextQuery(text) for texts in choice.prompts.prompts(class_names) for text in texts)


def draw_views(
    samples: Sequence[Sample], cache: EmbeddingCache, choice: QueryChoice, *, progress: Progress = silent
) -> tuple[tuple[View, ...], ...]:
    """Return the chosen views of each image, drawn from its content, whatever its name."""
    contents = read_files((sample.path for sample in samples), cache, progress=progress)
    files = (contents[sample.path] for sample in samples)
    count, seed, recipe = choice.rendered_views, choice.seed, choice.recipe
    return tuple(tuple(views_for(file.file_sha, (file.width, file.height), count, seed, recipe)) for file in files)
