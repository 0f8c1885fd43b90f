"""What is alike of answers that were bought, whether they come from the cache or from a purchase file."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from vl2v_client.cache.records import Paid
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.reports.pages import Purchase
from vl2v_client.reports.report import ZERO_SHOT, ReportRow
from vl2v_client.runs.method_training import RunData
from vl2v_client.runs.run_folder import USED_FILE, RunFolder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.source import billable_keys
from vl2v_client.student.loss.methods import asks_about_images
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.teacher.text_classifier import zero_shot_logits
from vl2v_contract.identity import Modality

PaidFor = Callable[[Iterable[str]], Mapping[Modality, Paid]]
"""Says what was paid for the vectors of those cache keys, each once."""


def keep_used(planned: PlannedRun, folder: RunFolder, missing: Callable[[Iterable[str]], Sequence[str]]) -> list[str]:
    """Keep in a run's folder what it trains on, unless a text is missing; return the keys of its images.

    Args:
        planned: The run.
        folder: Its folder.
        missing: Returns those of some cache keys whose vectors were not bought.

    Raises:
        CacheError: The folder cannot be written.
    """
    wanted, texts = planned.plan.used_image_keys, dict.fromkeys(planned.plan.text_keys)
    lacking = set(missing([*wanted, *texts]))
    used = [key for key in wanted if key not in lacking]
    if lacking.isdisjoint(texts):
        folder.keep(USED_FILE, {"keys": [*used, *texts]})
    return used


def teacher_on_training_images(planned: PlannedRun, data: RunData) -> ReportRow:
    """Score the teacher on the training images' first views, which are bought anyway."""
    rows, scale = data.targets.bought[:, 0], planned.plan.teacher.logit_scale
    if not rows.any():
        return ReportRow(ZERO_SHOT, None, note="no image was bought")
    logits = zero_shot_logits(data.targets.vectors[rows, 0], data.text_classifier, logit_scale=scale)
    accuracy = float((logits.argmax(axis=1) == data.training.train.labels[rows]).mean())
    return ReportRow(ZERO_SHOT, None, note=f"{accuracy:.1%} on the training images")


def purchase_bill(paid_for: PaidFor, settings: RunSettings, planned: PlannedRun, exported: TrainingResult) -> Purchase:
    """Return the queries that the exported method reads and their price, whenever it was paid; others apart."""
    plan, config, method = planned.plan, settings.training, exported.method
    images, texts = billable_keys(method, config, planned)
    paid, whole = paid_for([*images, *texts]), paid_for([*plan.used_image_keys, *plan.text_keys])
    amount_micro = sum(of_kind.amount_micro for of_kind in paid.values())
    sources, steps = len(planned.queries.split.source_domains), sum(stage.steps for stage in method.stages)
    return Purchase(
        images=paid["image"].units,
        texts=paid["text"].units,
        amount_micro=amount_micro,
        currency=plan.currency,
        published_queries=config.drawn_views(steps, sources) if asks_about_images(method, config) else None,
        other_queries=sum(whole[kind].units - paid[kind].units for kind in whole),
        other_amount_micro=sum(of_kind.amount_micro for of_kind in whole.values()) - amount_micro,
    )
