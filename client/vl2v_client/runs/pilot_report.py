"""The report of a pilot: what was asked, found and advised, and what runs could come next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.core.values import TeacherModel
from vl2v_client.evaluation.pilot_findings import Advice, DomainFinding
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.selectors import RANDOM
from vl2v_client.teacher.text_classifier import PromptTemplateSet


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
