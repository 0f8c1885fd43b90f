"""A pilot: the images that it asks about, each looked at in up to three ways, and the report of what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import EmbeddingMatrix, Sample, TeacherModel
from vl2v_client.data.folder import DomainDataset
from vl2v_client.data.splits import split
from vl2v_client.data.views import View, canonical_view
from vl2v_client.evaluation.pilot_findings import Advice, DomainFinding
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.queries import ImageQuery, read_files
from vl2v_client.planning.selectors import RANDOM, select
from vl2v_client.runs.teacher_answers import ask_teacher
from vl2v_client.teacher.text_classifier import PromptTemplateSet, unit_rows

FEWEST_IMAGES = 6
CROP_SHARE = 0.7
"""Share of the image's area in its middle: the smallest crop that a standard view takes."""

_PROBE_IMAGES = 2000


@dataclass(frozen=True)
class PilotSample:
    """Training images of a pilot.

    Attributes:
        train: All training images, without copies of a file.
        probed: Images that the probe is fitted on; a random selection would take them in this order.
        count: Number of the first of `probed` that the teacher is asked about.
    """

    train: tuple[Sample, ...]
    probed: tuple[Sample, ...]
    count: int

    @property
    def asked(self) -> tuple[Sample, ...]:
        """Images that the teacher is asked about."""
        return self.probed[: self.count]


@dataclass(frozen=True)
class Looks:
    """What the teacher says of a pilot's images `[N]`; of the first `M`, it sees two more views.

    Attributes:
        images: Unit embeddings of the images, `[N, D]`.
        flips: Unit embeddings of the first ones' mirror images, `[M, D]`.
        crops: Unit embeddings of the first ones' middles, `[M, D]`.
        classifier: Zero-shot classifier, `[C, D]`.
        purchase: What was bought for it now.
    """

    images: NDArray[np.float32]
    flips: NDArray[np.float32]
    crops: NDArray[np.float32]
    classifier: EmbeddingMatrix
    purchase: PurchaseReport

    def mean_cosine(self, others: NDArray[np.float32]) -> float:
        """Return the mean cosine between the first images and their other views `[M, D]`."""
        return float((self.images[: len(others)] * others).sum(axis=1, dtype=np.float64).mean())


def draw_sample(
    choice: QueryChoice, dataset: DomainDataset, cache: EmbeddingCache, *, queries: int, texts: int, progress: Progress
) -> PilotSample:
    """Draw the images that a random selection would take first with the same seed.

    Args:
        choice: Target domain and seed.
        dataset: Data set to draw from; its target domain stays closed.
        cache: Remembers what files hold.
        queries: Queries at most, texts included.
        texts: Different texts among them.
        progress: Gets every file that is read.

    Raises:
        UsageError: `queries` leaves too few images.
        DataError: A file cannot be read, or there is no such target domain.
    """
    train = split(dataset, target_domain=choice.target_domain, seed=choice.seed).train
    train = _first_of_each_content(train, cache, progress)
    count = _image_count(queries, texts, len(train))
    labels, domains = labels_of(train), [sample.domain for sample in train]
    order = select(RANDOM, labels=labels, domains=domains, budget=max(count, _PROBE_IMAGES), seed=choice.seed)
    return PilotSample(train, tuple(train[row] for row in order), count)


def labels_of(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Return the class indices `[N]` of samples."""
    return np.array([sample.class_index for sample in samples])


def look_at(
    samples: Sequence[Sample],
    prompts: Sequence[Sequence[str]],
    teacher: TeacherModel,
    context: PurchaseContext,
    progress: Progress,
) -> Looks:
    """Ask about images, and about the mirror image and the middle of every third.

    Raises:
        ClientError: As `buying.purchase.buy`.
    """
    again = samples[: max(1, len(samples) // 3)]
    crops = _middles(again, context.cache, progress)
    images = [
        *(ImageQuery(sample, canonical_view()) for sample in samples),
        *(ImageQuery(sample, View(flip=True)) for sample in again),
        *(ImageQuery(sample, crop) for sample, crop in zip(again, crops, strict=True)),
    ]
    answers = ask_teacher(images, prompts, teacher, context, progress=progress)
    first, flips, middles = np.split(unit_rows(answers.images), (len(samples), len(samples) + len(again)))
    return Looks(first, flips, middles, answers.classifier, answers.purchase)


def _first_of_each_content(samples: Sequence[Sample], cache: EmbeddingCache, progress: Progress) -> tuple[Sample, ...]:
    """Return the samples without later copies of a file, as a selection does; no picture is rendered to find them."""
    files = read_files((sample.path for sample in samples), cache, progress=progress)
    firsts: dict[str, Sample] = {}
    for sample in samples:
        firsts.setdefault(files[sample.path].file_sha, sample)
    return tuple(firsts.values())


def _image_count(queries: int, texts: int, images: int) -> int:
    """Return how many images `queries` hold, if every third is asked about three times."""
    count = max(0, min(images, (queries - texts) * 3 // 5))
    if count < min(FEWEST_IMAGES, images):
        needed = texts + -(-FEWEST_IMAGES * 5 // 3)
        raise UsageError(
            f"a pilot of {queries} queries holds {count} images beside {texts} texts: ask {needed} or more"
        )
    return count


def _middles(samples: Sequence[Sample], cache: EmbeddingCache, progress: Progress) -> list[View]:
    """Return a view of the middle of each image, in whole pixels."""
    files = read_files((sample.path for sample in samples), cache, progress=progress)
    side = math.sqrt(CROP_SHARE)
    views = []
    for sample in samples:
        content = files[sample.path]
        width, height = max(1, round(content.width * side)), max(1, round(content.height * side))
        views.append(View(crop=((content.width - width) // 2, (content.height - height) // 2, width, height)))
    return views


@dataclass(frozen=True, slots=True)
class Suspect:
    """An image whose label is likely wrong."""

    path: str
    label: str
    teacher_says: str
    cosine: float


@dataclass(frozen=True, slots=True)
class Offer:
    """What a later run would ask.

    Attributes:
        options: Options of that run, by group, as `RunConfig` takes them.
        queries: Queries in all, texts included; copies of an image count once.
        new: Queries that are not paid for yet.
        amount_micro: Price of the new ones, in micro-units.
    """

    name: str
    options: Mapping[str, Mapping[str, Any]]
    queries: int
    new: int
    amount_micro: int


@dataclass(frozen=True)
class PilotReport:
    """What was asked, found and advised.

    Attributes:
        images: Number of images that were asked about.
        flipped: Number of them that were looked at in two more ways.
        purchase: What was bought.
        flip_cosine: Mean cosine of an image's embedding and that of its mirror image.
        crop_cosine: Mean cosine of an image's embedding and that of its middle.
        cosines: Histogram of cos(image, text of its label), as in `pilot_findings.histogram`.
    """

    model: str
    images: int
    flipped: int
    purchase: PurchaseReport
    domains: tuple[DomainFinding, ...]
    flip_cosine: float
    crop_cosine: float
    cosines: tuple[tuple[float, int], ...]
    suspects: tuple[Suspect, ...]
    advice: Advice
    offers: tuple[Offer, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        kept = {name: value for name, value in asdict(self).items() if name != "purchase"}
        bought = self.purchase
        return kept | {
            "billed_units": bought.billed_units,
            "amount_micro": bought.amount_micro,
            "currency": bought.currency,
        }


def make_offers(
    choice: QueryChoice, views: int, images: int, asked: int, texts: int, teacher: TeacherModel
) -> tuple[Offer, ...]:
    """Return the runs that could come next.

    Args:
        choice: Data set, seed and prompts of the pilot.
        views: Views of each image that are advised.
        images: Training images, each content once.
        asked: Images of the pilot; their first views are paid for by now, and so are the texts.
        texts: Different texts.
        teacher: Model with its prices.
    """
    named = () if choice.prompts == PromptTemplateSet() else choice.prompts.templates
    common: dict[str, dict[str, Any]] = {}
    if choice.seed:
        common["training"] = {"seed": choice.seed}
    if named:
        common["data"] = {"prompts": named}
    tenth = -(-images // 10)
    wanted: list[tuple[str, dict[str, Any], int]] = [
        ("text alone", {"views": 0}, 0),
        ("a tenth of the images", {"views": 1, "select": RANDOM, "max_queries": texts + tenth}, tenth),
        ("every image once", {"views": 1}, images),
    ]
    if views > 1:
        wanted.append((f"{views} views of each image", {"views": views}, views * images))
    price = teacher.image_price.unit_price_micro
    return tuple(
        Offer(name, {"purchase": options} | common, texts + count, max(0, count - asked), max(0, count - asked) * price)
        for name, options, count in wanted
    )
