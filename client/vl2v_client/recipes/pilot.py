"""A pilot: about 200 queries that tell whether more are worth their price. All of them serve later runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import PurchaseContext, buy_planned, meet
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import Progress
from vl2v_client.core.values import Sample, TeacherModel
from vl2v_client.data.folder import DomainDataset, open_dataset
from vl2v_client.data.splits import split
from vl2v_client.data.views import View, canonical_view
from vl2v_client.evaluation.zero_shot import zero_shot_logits
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.hashing import read_files
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.planning.query_plan import make_plan
from vl2v_client.planning.selectors import RANDOM, select
from vl2v_client.recipes.pilot_findings import (
    Advice,
    DomainFinding,
    advise,
    domain_finding,
    histogram,
    probe_accuracies,
    suspects,
)
from vl2v_client.runs.features import canonical_features
from vl2v_client.student.model.spec import StudentSpec
from vl2v_client.teacher.prompts import PromptTemplateSet
from vl2v_client.teacher.text_classifier import unit_rows, zero_shot_classifier

DEFAULT_QUERIES = 200
FEWEST_IMAGES = 6
CROP_SHARE = 0.7
"""Of the image's area, in the middle: the smallest crop that a standard view takes."""

_PROBE_IMAGES = 2000


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
        queries: in all, texts included; copies of an image count once.
        new: of them not paid for yet.
        amount_micro: their price.
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
        cosines: histogram of cos(image, text of its label), as in `pilot_findings.histogram`.
        flip_cosine: mean cosine of an image's embedding and that of its mirror image.
        crop_cosine: mean cosine of an image's embedding and that of its middle.
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
        """The report as JSON values."""
        kept = {name: value for name, value in asdict(self).items() if name != "purchase"}
        bought = self.purchase
        return kept | {
            "billed_units": bought.billed_units,
            "amount_micro": bought.amount_micro,
            "currency": bought.currency,
        }


@dataclass(frozen=True)
class _Asked:
    """The pilot's images `[n]`, of which the first are looked at in two more ways, with their unit embeddings."""

    samples: tuple[Sample, ...]
    labels: NDArray[np.int64]
    images: NDArray[np.float32]
    flips: NDArray[np.float32]
    crops: NDArray[np.float32]
    classifier: NDArray[np.float32]


def pilot(
    choice: QueryChoice,
    spec: StudentSpec,
    context: PurchaseContext,
    *,
    queries: int = DEFAULT_QUERIES,
    progress: Progress,
) -> PilotReport:
    """Ask about a stratified few of the training images, and say what that is worth. The target domain stays closed.

    The images are those that a random selection would take first with the same seed, so a later run has them already.

    Args:
        choice: data set, target domain, seed and prompts; its views are not used.
        spec: of the student, whose frozen features the teacher has to beat.
        context: Whom to buy from.
        queries: at most, texts included.
        progress: told of everything that takes time.

    Raises:
        UsageError: `queries` leaves too few images.
        ClientError: as `buying.purchase.buy`.
    """
    teacher = meet(context)
    dataset = open_dataset(choice.data)
    train = split(dataset, target_domain=choice.target_domain, seed=choice.seed).train
    train = _first_of_each_content(train, context.cache, progress)
    texts = [TextQuery(text) for of_class in choice.prompts.prompts(dataset.class_names) for text in of_class]
    labels = np.array([sample.class_index for sample in train])
    domains = [sample.domain for sample in train]
    count = _image_count(queries, len({text.text for text in texts}), len(train))
    order = select(RANDOM, labels=labels, domains=domains, budget=max(count, _PROBE_IMAGES), seed=choice.seed)
    samples = tuple(train[row] for row in order)

    asked, bought = _ask(samples[:count], texts, dataset, teacher, context, progress)
    features = canonical_features(spec, samples, teacher.image_size, seed=choice.seed, progress=progress)
    probes = probe_accuracies(features, labels[order], [sample.domain for sample in samples], seed=choice.seed)

    named = zero_shot_logits(asked.images, asked.classifier, logit_scale=teacher.logit_scale).argmax(axis=1)
    of_domain = np.array([sample.domain for sample in asked.samples])
    findings = tuple(
        domain_finding(
            name, (named == asked.labels)[of_domain == name], probes[name], labels[np.asarray(domains) == name]
        )
        for name in sorted(set(of_domain))  # a domain may be too small to be asked about
    )
    return _report(
        asked,
        named,
        findings,
        bought,
        dataset,
        teacher,
        choice,
        images=len(train),
        texts=len(set(texts)),
    )


def _report(
    asked: _Asked,
    named: NDArray[np.int64],
    findings: tuple[DomainFinding, ...],
    bought: PurchaseReport,
    dataset: DomainDataset,
    teacher: TeacherModel,
    choice: QueryChoice,
    *,
    images: int,
    texts: int,
) -> PilotReport:
    flip, crop = (_mean_cosine(asked.images, looks) for looks in (asked.flips, asked.crops))
    cosines = (asked.images * asked.classifier[asked.labels]).sum(axis=1, dtype=np.float64)
    advice, classes = advise(findings, flip_cosine=flip, crop_cosine=crop), dataset.class_names
    return PilotReport(
        model=teacher.id,
        images=len(asked.images),
        flipped=len(asked.flips),
        purchase=bought,
        domains=findings,
        flip_cosine=flip,
        crop_cosine=crop,
        cosines=histogram(cosines),
        suspects=tuple(
            Suspect(str(asked.samples[i].path), classes[asked.labels[i]], classes[named[i]], float(cosines[i]))
            for i in suspects(cosines, asked.labels, named)
        ),
        advice=advice,
        offers=_offers(choice, advice.views, images, len(asked.images), texts, teacher),
    )


def _first_of_each_content(samples: Sequence[Sample], cache: EmbeddingCache, progress: Progress) -> tuple[Sample, ...]:
    """Without later copies of a file, as a selection leaves them out; no picture is rendered to find them."""
    files = read_files((sample.path for sample in samples), cache, progress=progress)
    firsts: dict[str, Sample] = {}
    for sample in samples:
        firsts.setdefault(files[sample.path].file_sha, sample)
    return tuple(firsts.values())


def _image_count(queries: int, texts: int, images: int) -> int:
    """How many images `queries` hold, if every third is asked about three times."""
    count = max(0, min(images, (queries - texts) * 3 // 5))
    if count < min(FEWEST_IMAGES, images):
        needed = texts + -(-FEWEST_IMAGES * 5 // 3)
        raise UsageError(
            f"a pilot of {queries} queries holds {count} images beside {texts} texts: ask {needed} or more"
        )
    return count


def _ask(
    samples: Sequence[Sample],
    texts: Sequence[TextQuery],
    dataset: DomainDataset,
    teacher: TeacherModel,
    context: PurchaseContext,
    progress: Progress,
) -> tuple[_Asked, PurchaseReport]:
    again = samples[: max(1, len(samples) // 3)]
    crops = _middles(again, context.cache, progress)
    images = [
        *(ImageQuery(sample, canonical_view()) for sample in samples),
        *(ImageQuery(sample, View(flip=True)) for sample in again),
        *(ImageQuery(sample, crop) for sample, crop in zip(again, crops, strict=True)),
    ]
    plan = make_plan(images, texts, teacher, context.cache, progress=progress)
    report = buy_planned(plan, context, progress=progress)
    vectors = context.cache.get_many([*plan.image_keys, *plan.text_keys])
    rows = unit_rows([vectors[key] for key in plan.image_keys])
    said = np.stack([vectors[key] for key in plan.text_keys])
    ends = (len(samples), len(samples) + len(again))
    classifier = zero_shot_classifier(said.reshape(len(dataset.class_names), -1, teacher.embedding_dim))
    labels = np.array([sample.class_index for sample in samples])
    first, flips, crops_said = np.split(rows, ends)
    return _Asked(tuple(samples), labels, first, flips, crops_said, classifier), report


def _middles(samples: Sequence[Sample], cache: EmbeddingCache, progress: Progress) -> list[View]:
    """The middle of each image, 70 % of its area, in whole pixels."""
    files = read_files((sample.path for sample in samples), cache, progress=progress)
    side = math.sqrt(CROP_SHARE)
    views = []
    for sample in samples:
        content = files[sample.path]
        width, height = max(1, round(content.width * side)), max(1, round(content.height * side))
        views.append(View(crop=((content.width - width) // 2, (content.height - height) // 2, width, height)))
    return views


def _mean_cosine(images: NDArray[np.float32], looks: NDArray[np.float32]) -> float:
    return float((images[: len(looks)] * looks).sum(axis=1, dtype=np.float64).mean())


def _offers(
    choice: QueryChoice, views: int, images: int, asked: int, texts: int, teacher: TeacherModel
) -> tuple[Offer, ...]:
    """Texts are paid for by now, and so are the first views of the pilot's images."""
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
