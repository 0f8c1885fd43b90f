"""A pilot: the images that it asks about, each looked at in up to three ways, and the report of what was found."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.cache.store import EmbeddingCache, FileContent
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import Sample, TeacherModel
from vl2v_client.data.folder import DomainDataset
from vl2v_client.data.splits import split
from vl2v_client.data.views import View, canonical_view
from vl2v_client.evaluation.pilot_findings import Advice, DomainFinding
from vl2v_client.planning.choice import RANDOM, QueryChoice, select
from vl2v_client.planning.file_contents import read_files
from vl2v_client.planning.queries import ImageQuery
from vl2v_client.teacher.text_classifier import PromptTemplateSet

FEWEST_IMAGES = 6
CROP_SHARE = 0.7  # share of the image's area in its middle: the smallest crop that a standard view takes

_PROBE_IMAGES = 2000


@dataclass(frozen=True)
class PilotSample:
    """What a pilot looks at.

    Attributes:
        train: All training images, without copies of a file.
        probed: Images that the probe is fitted on; a random selection would take them in this order.
        asked: The first of `probed`, `N` that the teacher is asked about.
        queries: `[N + 2 M]`: each of them, then the mirror images of the first `M`, then the middles of these.
    """

    train: tuple[Sample, ...]
    probed: tuple[Sample, ...]
    asked: tuple[Sample, ...]
    queries: tuple[ImageQuery, ...]


def draw_sample(
    choice: QueryChoice, dataset: DomainDataset, cache: EmbeddingCache, *, queries: int, texts: int, progress: Progress
) -> PilotSample:
    """Draw the images that a random selection would take first with the same seed; look at every third in three ways.

    They fit into `queries` with so many different `texts`. The target domain stays closed.

    Raises:
        UsageError: `queries` leaves too few images.
        DataError: A file cannot be read, or there is no such target domain.
    """
    train = split(dataset, target_domain=choice.target_domain, seed=choice.seed).train
    files = read_files((sample.path for sample in train), cache, progress=progress)
    firsts: dict[str, Sample] = {}  # without later copies of a file, as a selection does
    for sample in train:
        firsts.setdefault(files[sample.path].file_sha, sample)
    train = tuple(firsts.values())
    count = max(0, min(len(train), (queries - texts) * 3 // 5))
    if count < min(FEWEST_IMAGES, len(train)):
        needed = texts + -(-FEWEST_IMAGES * 5 // 3)
        raise UsageError(
            f"a pilot of {queries} queries holds {count} images beside {texts} texts: ask {needed} or more"
        )
    labels, domains = labels_of(train), [sample.domain for sample in train]
    order = select(RANDOM, labels=labels, domains=domains, budget=max(count, _PROBE_IMAGES), seed=choice.seed)
    probed = tuple(train[row] for row in order)
    asked = probed[:count]
    again = asked[: max(1, count // 3)]
    looks = [
        *(ImageQuery(sample, canonical_view()) for sample in asked),
        *(ImageQuery(sample, View(flip=True)) for sample in again),
        *(ImageQuery(sample, _middle(files[sample.path])) for sample in again),
    ]
    return PilotSample(train, probed, asked, tuple(looks))


def labels_of(samples: Sequence[Sample]) -> NDArray[np.int64]:
    """Return the class indices `[N]` of samples."""
    return np.array([sample.class_index for sample in samples])


def _middle(content: FileContent) -> View:
    """Return a view of the middle of an image, in whole pixels."""
    side = math.sqrt(CROP_SHARE)
    width, height = max(1, round(content.width * side)), max(1, round(content.height * side))
    return View(crop=((content.width - width) // 2, (content.height - height) // 2, width, height))


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

    @property
    def next(self) -> Offer:
        """The run to do next: what is advised; a small part of it where the answers do not say whether it is worth it.

        Where images are not worth their price, it is the one that asks about none.
        """
        place = {"no": 0, "undecided": 1, "yes": -1}[self.advice.worth_buying]
        return self.offers[place]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        values = asdict(self)
        bought = values.pop("purchase")
        return values | {name: bought[name] for name in ("billed_units", "amount_micro", "currency")}


def make_offers(
    choice: QueryChoice, views: int, images: int, asked: int, texts: int, teacher: TeacherModel
) -> tuple[Offer, ...]:
    """Return the runs that could come next, with so many views of each image advised.

    The pilot has `asked` about some of all training `images`, each content once; their first views are paid for by
    now, and so are the different `texts`.
    """
    common: dict[str, dict[str, Any]] = {}
    if choice.seed:
        common["training"] = {"seed": choice.seed}
    if choice.prompts != PromptTemplateSet():
        common["data"] = {"prompts": choice.prompts.templates}
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
