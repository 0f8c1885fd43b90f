"""What the teacher is asked: views of the training images, the class prompts, and which images if not all can be asked.

Labels and domains are known and free, so a selector works within the strata of class x domain and takes from each in
proportion to its size. `random` is the baseline; `k-center` covers each stratum's features. Both take first views
before second ones; `random-views` takes the images of `random`, and of each image its views in an order of its own.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vl2v_client.cache.memo import RunCache
from vl2v_client.config.run import DEFAULT_VIEWS, Selector
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import generator
from vl2v_client.data.folder import DomainDataset, check_class_names, open_dataset
from vl2v_client.data.layout import refuse_one_class
from vl2v_client.data.splits import Split, split
from vl2v_client.data.views import STANDARD, View, views_for
from vl2v_client.planning.broken import find_broken, naming_all_broken
from vl2v_client.planning.file_contents import read_files
from vl2v_client.planning.queries import ImageQuery, TextQuery
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
        skip_broken: Images of the source domains that cannot be used are left out.
        skipped: Those that a run has left out before, by path below `data`; `None` if they are still to be found.
    """

    data: Path
    target_domain: str | None = None
    views: int = DEFAULT_VIEWS
    train_views: int | None = None
    seed: int = 0
    prompts: PromptTemplateSet = field(default_factory=PromptTemplateSet)
    recipe: str = STANDARD
    ask_images: bool = True
    skip_broken: bool = False
    skipped: tuple[str, ...] | None = None

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


def open_choice(
    choice: QueryChoice,
    cache: RunCache,
    *,
    size: int,
    listed: DomainDataset | None = None,
    progress: Progress = silent,
) -> DomainDataset:
    """Return the data set, without the source domains' images that cannot be used if the choice leaves them out.

    They are looked for at the size at which views are rendered, so that no file is decoded twice. The folder is not
    listed again if it is `listed` already.

    Raises:
        DataError: The data set cannot be used, or there is no such target domain.
    """
    dataset = listed or open_dataset(choice.data)
    refuse_one_class(dataset.root, dataset.class_names)
    skipped = choice.skipped
    if skipped is None and choice.skip_broken:
        sources = dataset.source_domains(choice.target_domain)
        samples = [sample for domain in sources for sample in dataset.samples_of(domain)]
        broken = find_broken(samples, cache, size=size, progress=progress)
        skipped = tuple(str(path.relative_to(dataset.root)) for path in broken)
    return dataset.without(skipped or ())


def collect_queries(
    choice: QueryChoice,
    cache: RunCache,
    *,
    size: int,
    listed: DomainDataset | None = None,
    progress: Progress = silent,
) -> RunQueries:
    """Read the data set, if `listed` is not it, and name what a run on it asks. The target's images are not opened.

    Raises:
        DataError: The data set or images in it cannot be used, or there is no such target domain.
    """
    dataset = open_choice(choice, cache, size=size, listed=listed, progress=progress)
    seed, asked = choice.seed, choice.asked_views
    parts = split(dataset, target_domain=choice.target_domain, seed=seed)
    with naming_all_broken(parts.sources, cache, size=size, progress=progress):
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


RANDOM: Final = "random"
RANDOM_VIEWS: Final = "random-views"
K_CENTER: Final = "k-center"


def select(
    name: Selector,
    *,
    labels: NDArray[np.int64],
    domains: Sequence[str],
    budget: int,
    seed: int,
    features: NDArray[np.floating] | None = None,
) -> list[int]:
    """Return rows in the order of buying. A smaller budget gives the beginning of the same list.

    Args:
        name: Name of the selector.
        labels: `[N]`, class of each image.
        domains: `[N]`, names.
        budget: Number of rows; all `N` if there are no more.
        seed: Seed of the random order and of ties between strata.
        features: `[N, F]` of the frozen student, for `k-center`.

    Raises:
        ValueError: `k-center` got no features.
    """
    turns = stratified_turns(labels, domains, seed)[:budget]
    if name != K_CENTER:
        return [row for _, row in turns]
    if features is None:
        raise ValueError(f"{name} reads the student's features")
    strata, queues = _strata(labels, domains), {}
    for stratum, count in Counter(stratum for stratum, _ in turns).items():
        rows = np.array(strata[stratum])
        queues[stratum] = iter(rows[k_center(features[rows], count)].tolist())  # the rows that cover it, in their order
    return [next(queues[stratum]) for stratum, _ in turns]


def view_order(name: Selector, images: int, views: int, seed: int) -> NDArray[np.int64]:
    """Return for each image the order in which its views are asked about, `[images, views]`; that of `seed`."""
    first_to_last = np.tile(np.arange(views), (images, 1))
    return generator(seed, "view order").permuted(first_to_last, axis=1) if name == RANDOM_VIEWS else first_to_last


def stratified_turns(labels: NDArray[np.int64], domains: Sequence[str], seed: int) -> list[tuple[tuple[str, int], int]]:
    """Return all rows in stratified random order, each with its stratum `(domain, class)`.

    The `j`-th row (from 0) of a stratum of `n` comes at the share `(j + 1/2) / n` of the way, so every beginning of
    the list holds each stratum in proportion to its size; strata of one size take turns in random order.
    """
    random = generator(seed, "select")
    strata = _strata(labels, domains)
    ties = random.permutation(len(strata))
    timed = [
        ((2 * turn + 1) / (2 * len(rows)), int(tie), key, rows[place])
        for tie, (key, rows) in zip(ties, sorted(strata.items()), strict=True)
        for turn, place in enumerate(random.permutation(len(rows)).tolist())
    ]
    return [(key, row) for _, _, key, row in sorted(timed)]


def k_center(features: NDArray[np.floating], count: int) -> list[int]:
    """Return the row farthest from all picked so far; the first is the one nearest the mean. `O(count n F)`.

    Features `[n, F]` are scaled to length one, so a squared distance is `2 - 2 cos`; a tie falls to the lower row. The
    largest distance left is at most twice the least that any `count` centres allow. Gonzalez, TCS 1985; Sener and
    Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR 2018.
    """
    lengths = np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    points = (features / np.maximum(lengths, 1e-12)).astype(np.float32)
    squares = np.square(points).sum(axis=1)
    nearest = np.full(len(points), np.inf, dtype=np.float32)
    picked: list[int] = []
    while len(picked) < min(count, len(points)):
        row = int(np.argmax(nearest if picked else points @ points.mean(axis=0)))
        picked.append(row)
        distances = np.maximum(squares - 2 * (points @ points[row]) + squares[row], 0)
        nearest = np.minimum(nearest, distances)
        nearest[picked] = -np.inf
    return picked


def _strata(labels: NDArray[np.int64], domains: Sequence[str]) -> dict[tuple[str, int], list[int]]:
    """Return the rows of each domain and class, in order."""
    strata: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(domains, labels.tolist(), strict=True)):
        strata.setdefault(key, []).append(row)
    return strata
