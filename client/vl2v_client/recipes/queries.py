"""From a data set to what the teacher is asked: the training images' views, and the class prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import Sample
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.splits import Split, split
from vl2v_client.data.views import STANDARD, View, styled_views, view_recipe, views_for
from vl2v_client.planning.contents import read_files
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.student.card import check_class_names
from vl2v_client.teacher.directions import style_prompts
from vl2v_client.teacher.prompts import PromptTemplateSet

StyleTargets = Literal["bought", "text"]

DEFAULT_VIEWS = 4


@dataclass(frozen=True, slots=True)
class QueryChoice:
    """What decides a run's queries.

    Attributes:
        data: the data set's folder.
        target_domain: held out and never bought; None trains on everything.
        views: of each training image that the teacher is asked about.
        train_views: of each training image that are trained on, if more: the further ones borrow the target that
            their image's asked views have on average, at no query.
        seed: of the hold-out and the views.
        prompts: templates that the class names are put in.
        recipe: how the views are chosen, a key of `data.views.VIEW_RECIPES`.
        style_targets: where a styled view's target comes from: `bought` asks about it like any other; `text` asks
            about each style and class in words, once, and moves the canonical view's embedding.
        ask_images: false for methods that read no image embedding: their views are rendered, and nothing is asked.

    Raises:
        UsageError: there is no such recipe or source of targets, the recipe styles nothing that texts could move, or
            fewer views are trained on than asked about.
    """

    data: Path
    target_domain: str | None = None
    views: int = DEFAULT_VIEWS
    train_views: int | None = None
    seed: int = 0
    prompts: PromptTemplateSet = field(default_factory=PromptTemplateSet)
    recipe: str = STANDARD
    style_targets: StyleTargets = "bought"
    ask_images: bool = True

    def __post_init__(self) -> None:
        if self.style_targets not in get_args(StyleTargets):
            raise UsageError(f"no style targets {self.style_targets!r}; there are: {', '.join(get_args(StyleTargets))}")
        if self.style_targets == "text" and not view_recipe(self.recipe).styles:
            raise UsageError(f"the view recipe {self.recipe} has no styles: use --view-recipe styles beside them")
        if self.style_targets == "text" and self.train_views is not None:
            raise UsageError("--style-targets text and --train-views both fill unasked views: leave one out")
        if self.train_views is not None and self.train_views < self.views:
            raise UsageError(
                f"--train-views {self.train_views} is less than --views {self.views}: all that is bought is used"
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
    def asked_views(self) -> tuple[int, ...]:
        """Which views the teacher is asked about, the same of every image; view 0 is the first if there is any."""
        if not self.ask_images:
            return ()
        free = self.styled_views if self.style_targets == "text" else ()
        return tuple(view for view in range(self.views) if view not in free)

    @property
    def worded_styles(self) -> tuple[str, ...]:
        """The styles that are asked about in words."""
        moved = self.style_targets == "text" and self.ask_images and self.styled_views
        return view_recipe(self.recipe).styles if moved else ()


@dataclass(frozen=True)
class RunQueries:
    """A data set, split, with the queries that its training images and classes make.

    Attributes:
        views: `K` views for each of the `N` training images.
        asked_views: which `A` of the `K` views are asked about, the same of every image.
        images: one query for each of them, `N * A`, an image's views side by side.
        texts: one query per class and template, `C * T`, a class's templates side by side.
        worded_styles: the `S` styles that are asked about in words; usually none.
        style_texts: one query per such style and class, `S * C`, a style's classes side by side.
    """

    dataset: DomainDataset
    split: Split
    views: tuple[tuple[View, ...], ...]
    asked_views: tuple[int, ...]
    images: tuple[ImageQuery, ...]
    texts: tuple[TextQuery, ...]
    worded_styles: tuple[str, ...]
    style_texts: tuple[TextQuery, ...]


def collect_queries(choice: QueryChoice, cache: EmbeddingCache, *, progress: Progress = silent) -> RunQueries:
    """Read the data set and name what a run on it asks. The target domain's images are not opened.

    Raises:
        DataError: the data set or an image in it cannot be used, or there is no such target domain.
    """
    dataset = open_dataset(choice.data)
    parts = split(dataset, target_domain=choice.target_domain, seed=choice.seed)
    views = draw_views(parts.train, cache, choice, progress=progress)
    asked = choice.asked_views
    images = tuple(
        ImageQuery(sample, of_one[view]) for sample, of_one in zip(parts.train, views, strict=True) for view in asked
    )
    texts, style_texts = text_queries(choice, dataset.class_names)
    return RunQueries(dataset, parts, views, asked, images, texts, choice.worded_styles, style_texts)


def text_queries(
    choice: QueryChoice, class_names: Sequence[str]
) -> tuple[tuple[TextQuery, ...], tuple[TextQuery, ...]]:
    """The text queries of a run's classes, and those of its worded styles; see `RunQueries`.

    Raises:
        DataError: the classes have names that no student's card can hold.
    """
    check_class_names(class_names)
    texts = tuple(TextQuery(text) for texts in choice.prompts.prompts(class_names) for text in texts)
    styles = choice.worded_styles
    return texts, tuple(TextQuery(text) for text in style_prompts(styles, class_names)) if styles else ()


def draw_views(
    samples: Sequence[Sample], cache: EmbeddingCache, choice: QueryChoice, *, progress: Progress = silent
) -> tuple[tuple[View, ...], ...]:
    """The chosen views of each image, drawn from its content, whatever its name."""
    contents = read_files((sample.path for sample in samples), cache, progress=progress)
    files = (contents[sample.path] for sample in samples)
    count, seed, recipe = choice.rendered_views, choice.seed, choice.recipe
    return tuple(tuple(views_for(file.file_sha, (file.width, file.height), count, seed, recipe)) for file in files)
