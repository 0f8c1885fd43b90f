"""A pilot: about 200 queries that tell whether more are worth their price. Most of them serve later runs."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.context import PurchaseContext, meet
from vl2v_client.core.progress import Progress
from vl2v_client.evaluation.pilot_findings import (
    DomainFinding,
    advise,
    domain_finding,
    histogram,
    probe_accuracies,
    suspects,
)
from vl2v_client.planning.choice import open_choice
from vl2v_client.runs.pilot_report import PilotReport, PilotSample, Suspect, draw_sample, labels_of, make_offers
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.student_features import frozen_features, whole_images
from vl2v_client.runs.teacher_answers import ask_teacher
from vl2v_client.teacher.text_classifier import unit_rows, zero_shot_logits


def pilot(settings: RunSettings, context: PurchaseContext, *, queries: int, progress: Progress) -> PilotReport:
    """Ask about a stratified few of the training images, and say what that is worth. The target domain stays closed.

    The images are those that a random selection would take first with the same seed, so a later run has them already.
    At most so many queries are asked, texts included. The teacher has to beat what the run's student, frozen, makes of
    labels alone; that is found out first. The run's own views are not used.

    Raises:
        UsageError: `queries` leaves too few images.
        DataError: The student cannot be loaded or run; nothing was bought.
        ClientError: As `buying.purchase.buy`.
    """
    choice, teacher = settings.choice, meet(context)
    dataset = open_choice(choice, context.cache, size=teacher.image_size, progress=progress)
    classes, prompts = dataset.class_names, choice.prompts.prompts(dataset.class_names)
    texts = len({text for of_class in prompts for text in of_class})
    sample = draw_sample(choice, dataset, context.cache, queries=queries, texts=texts, progress=progress)
    images_of_probe = whole_images(sample.probed, settings.student.input.size, context.cache)
    features = frozen_features(settings, images_of_probe, 1, context.cache.features, progress)
    answers, classifier, purchase = ask_teacher(sample.queries, prompts, teacher, context, progress=progress)

    asked, seen_again = len(sample.asked), (len(sample.queries) - len(sample.asked)) // 2
    images, flips, crops = np.split(unit_rows(answers), (asked, asked + seen_again))
    labels = labels_of(sample.asked)
    named = zero_shot_logits(images, classifier, logit_scale=teacher.logit_scale).argmax(axis=1)
    findings = tuple(_findings(sample, features, named == labels, choice.seed))
    flip, crop = (float((images[:seen_again] * looks).sum(axis=1, dtype=np.float64).mean()) for looks in (flips, crops))
    cosines = (images * classifier[labels]).sum(axis=1, dtype=np.float64)
    advice = advise(findings, flip_cosine=flip, crop_cosine=crop)
    return PilotReport(
        model=teacher.id,
        images=asked,
        flipped=seen_again,
        purchase=purchase,
        domains=findings,
        flip_cosine=flip,
        crop_cosine=crop,
        cosines=histogram(cosines),
        suspects=tuple(
            Suspect(str(sample.asked[i].path), classes[labels[i]], classes[named[i]], float(cosines[i]))
            for i in suspects(cosines, labels, named)
        ),
        advice=advice,
        offers=make_offers(choice, advice.views, len(sample.train), asked, texts, teacher),
    )


def _findings(
    sample: PilotSample, features: NDArray[np.float32], right: NDArray[np.bool_], seed: int
) -> Iterator[DomainFinding]:
    """Yield what is found of each domain that was asked about; one may be too small for it."""
    domains = [one.domain for one in sample.probed]
    probes = probe_accuracies(features, labels_of(sample.probed), domains, seed=seed)
    asked = np.array([one.domain for one in sample.asked])
    for name in sorted(set(asked)):
        of_domain = labels_of([one for one in sample.train if one.domain == name])
        yield domain_finding(name, right[asked == name], probes[name], of_domain)
