"""The vendor as a source of answers: choose within the budget, buy, and join what was bought.

What a run trains on is written down when its purchase is done: a run that goes on buys nothing and uses the same.
Without it, whatever came into the cache after a purchase that was cut short would change the targets of a run that is
half trained, and the same command would spend its cap again. The name under which it buys is written down too, so that
a run which is killed while it buys goes on under what is left of its caps.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vl2v_client.buying.context import PurchaseContext, plan_run
from vl2v_client.buying.purchase import buy, check_images
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import BudgetExhausted, RunError
from vl2v_client.core.progress import Progress
from vl2v_client.evaluation.accuracy import Choices
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.query_plan import Limits, PlannedRun, QueryPlan
from vl2v_client.reports.pages import Bill, Purchase, SharedPurchase, SweepBill
from vl2v_client.reports.report import ZERO_SHOT, ReportRow
from vl2v_client.runs.method_training import RunData, load_run_data
from vl2v_client.runs.query_selection import choose_queries
from vl2v_client.runs.run_folder import LEFT_OUT_FILE, PURCHASE_FILE, USED_FILE, RunFolder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.source import Announce, Source, billable_keys
from vl2v_client.runs.student_features import run_features
from vl2v_client.runs.teacher_answers import text_classifier
from vl2v_client.student.loss.methods import METHODS, asks_about_images, online_queries
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.student.train.training_data import LabelledViews
from vl2v_client.teacher.text_classifier import zero_shot_logits


@dataclass(frozen=True)
class VendorSource(Source):
    """Buys a run's answers.

    Attributes:
        context: Whom to buy from, and on which terms.
    """

    context: PurchaseContext

    @property
    def cache(self) -> EmbeddingCache:
        """The client's cache."""
        return self.context.cache

    def plan(self, choice: QueryChoice, *, progress: Progress) -> PlannedRun:
        """Name the queries of a run, and what they cost.

        Raises:
            DataError: The data set cannot be used.
            VendorError: The vendor refuses, or was never met and cannot be reached.
        """
        return plan_run(choice, self.context, progress=progress)

    def obtain(
        self, settings: RunSettings, planned: PlannedRun, folder: RunFolder, *, progress: Progress
    ) -> tuple[PlannedRun, RunData]:
        """Choose within the budget, buy and join; return the plan of what is trained on with it.

        A folder whose purchase is done stays with what it trains on: nothing new is chosen or bought.

        Raises:
            RunError: The folder's purchase is done, and its images have changed since.
            ClientError: Whatever was bought so far is kept.
        """
        record, some_missing = folder.recall(USED_FILE), True
        if record is not None:
            planned = self._go_on(settings, planned, frozenset(record["keys"]), folder, progress)
        else:
            check_images(planned, self.context, progress=progress)
            features = partial(run_features, settings, planned, self.cache, progress)
            purchase, seed = settings.config.purchase, settings.choice.seed
            planned = choose_queries(purchase, seed, planned, features, folder)
            planned, some_missing = self._buy(planned, folder, progress)
        used_keys = {*planned.plan.used_image_keys, *planned.plan.text_keys}

        def fetch(keys: Sequence[str]) -> dict[str, NDArray[np.float16]]:
            return self.cache.get_many(key for key in keys if key in used_keys)

        terms: dict[str, Any] = {"allow_missing": some_missing, "progress": progress}
        return planned, load_run_data(settings, planned, fetch, folder, self.cache, **terms)

    def teacher_row(
        self, planned: PlannedRun, data: RunData, target: LabelledViews | None
    ) -> tuple[ReportRow, Choices | None]:
        """Score the teacher on the training images' first views, which are bought anyway; the target costs extra."""
        rows, scale = data.targets.bought[:, 0], planned.plan.teacher.logit_scale
        if not rows.any():
            return ReportRow(ZERO_SHOT, None, note="no image was bought"), None
        logits = zero_shot_logits(data.targets.vectors[rows, 0], data.text_classifier, logit_scale=scale)
        accuracy = float((logits.argmax(axis=1) == data.training.train.labels[rows]).mean())
        return ReportRow(ZERO_SHOT, None, note=f"{accuracy:.1%} on the training images"), None

    def bill(self, settings: RunSettings, planned: PlannedRun, exported: TrainingResult) -> Bill:
        """Return the queries that the exported method reads and their price, whenever it was paid; others apart."""
        plan, config, method = planned.plan, settings.training, exported.method
        images, texts = billable_keys(method, config, planned)
        records = self.cache.records
        paid, whole = records.paid([*images, *texts]), records.paid([*plan.used_image_keys, *plan.text_keys])
        amount_micro = sum(of_kind.amount_micro for of_kind in paid.values())
        sources = len(planned.queries.split.source_domains)
        return Purchase(
            images=paid["image"].units,
            texts=paid["text"].units,
            amount_micro=amount_micro,
            currency=plan.currency,
            published_queries=online_queries(config, sources) if asks_about_images(method, config) else None,
            other_queries=sum(whole[kind].units - paid[kind].units for kind in whole),
            other_amount_micro=sum(of_kind.amount_micro for of_kind in whole.values()) - amount_micro,
        )

    def follower(self) -> "VendorSource":
        """Return a source that never buys: what the first process could not buy is missing here too."""
        context = replace(self.context, approve=_leave_to_the_first, notify=lambda _sentence: None, allow_partial=True)
        return VendorSource(context)

    def share(
        self, planned: PlannedRun, folder: RunFolder, announce: Announce, *, progress: Progress
    ) -> tuple[PlannedRun, Source]:
        """Buy for all runs of a sweep.

        Raises:
            ClientError: Whatever was bought so far is kept.
        """
        left_out = frozenset((folder.recall(LEFT_OUT_FILE) or {"keys": ()})["keys"])
        planned = planned.cut([key for key in planned.plan.used_image_keys if key not in left_out])
        self.context.notify(announce(planned))
        check_images(planned, self.context, progress=progress)
        buy(planned.plan, self.context, progress=progress)
        text_classifier(planned, self.cache.get_many)  # it names a text that failed
        left_out = left_out.union(self.cache.missing(planned.plan.used_image_keys))
        if left_out:  # no later call asks about them again
            folder.keep(LEFT_OUT_FILE, {"keys": sorted(left_out)})
        context = replace(
            self.context,
            approve=partial(_refuse_more, left_out),
            notify=lambda _sentence: None,
            caps=Limits(),
            allow_partial=bool(left_out),
        )
        return planned, VendorSource(context)

    def sweep_bill(self, training: TrainingConfig, methods: Sequence[str], planned: PlannedRun) -> SweepBill:
        """Return what a sweep's one purchase cost, and how many of its queries each method reads."""
        plan, records = planned.plan, self.cache.records
        paid = records.paid([*plan.used_image_keys, *plan.text_keys])
        amount_micro = sum(of_kind.amount_micro for of_kind in paid.values())
        queries = {}
        for name in methods:
            method = METHODS[name](training)
            images, texts = billable_keys(method, training, planned)
            queries[method.name] = sum(of_kind.units for of_kind in records.paid([*images, *texts]).values())
        return SharedPurchase(paid["image"].units, paid["text"].units, amount_micro, plan.currency), queries

    def teacher_accuracy(
        self, planned: PlannedRun, targets: Sequence[str], rows: Mapping[str, ReportRow]
    ) -> dict[str, float]:
        """Score the teacher on first views of a target's training part: they were bought where it is a source."""
        queries, plan = planned.queries, planned.plan
        if not queries.asked_views:
            return {}
        first_views = plan.image_keys[:: queries.asked_views]
        vectors = self.cache.get_many(first_views)
        classifier = text_classifier(planned, self.cache.get_many)
        known = [pair for pair in zip(queries.split.train, first_views, strict=True) if pair[1] in vectors]
        found = {}
        for target in targets:
            of_target = [(sample, key) for sample, key in known if sample.domain == target]
            if of_target:
                images = np.stack([vectors[key] for _, key in of_target]).astype(np.float32)
                logits = zero_shot_logits(images, classifier, logit_scale=plan.teacher.logit_scale)
                labels = np.array([sample.class_index for sample, _ in of_target])
                found[target] = float((logits.argmax(axis=1) == labels).mean())
        return found

    def _buy(self, planned: PlannedRun, folder: RunFolder, progress: Progress) -> tuple[PlannedRun, bool]:
        """Buy under the run's own caps; return the run with what came, and whether something may be missing."""
        record = folder.recall(PURCHASE_FILE)
        if record is None:
            record = {"task": secrets.token_hex(8)}
            folder.keep(PURCHASE_FILE, record)
        context = replace(self.context, caps=replace(self.context.caps, task=record["task"]))
        try:
            buy(planned.plan, context, progress=progress)
        except BudgetExhausted as error:
            if not context.allow_partial:
                raise
            context.notify(
                f"{error}, in another run folder. This run keeps to these: images without an embedding train on their "
                "class's text alone"
            )
        wanted, texts = planned.plan.used_image_keys, dict.fromkeys(planned.plan.text_keys)
        lacking = set(self.cache.missing([*wanted, *texts]))
        used = [key for key in wanted if key not in lacking]
        if lacking.isdisjoint(texts):
            folder.keep(USED_FILE, {"keys": [*used, *texts]})
        some_missing = context.skip_failed or context.allow_partial or planned.plan.chosen is not None
        return planned.cut(used), some_missing

    def _go_on(
        self, settings: RunSettings, planned: PlannedRun, used: frozenset[str], folder: RunFolder, progress: Progress
    ) -> PlannedRun:
        """Return the run with what it trains on; buy again what the cache has lost of it since."""
        if not used <= {*planned.plan.image_keys, *planned.plan.text_keys}:
            raise RunError(
                f"{folder.path} bought images that have changed since: put them back, or choose another report.out"
            )
        cut = planned.cut([key for key in planned.plan.used_image_keys if key in used])
        left_out = planned.plan.units - cut.plan.units
        if left_out and settings.config.purchase.select is None:
            self.context.notify(
                f"The purchase of {folder.path} is done, and {left_out:,} queries stay out of it: to buy them too, "
                "choose another report.out"
            )
        if cut.plan.missing:
            buy(cut.plan, replace(self.context, allow_partial=False, skip_failed=False), progress=progress)
        return cut


def _leave_to_the_first(_plan: QueryPlan) -> None:
    raise BudgetExhausted("only the first process of a run buys")


def _refuse_more(left_out: frozenset[str], plan: QueryPlan) -> None:
    """Refuse what a sweep's run would buy: it goes on without what the purchase left out, and ends on anything else."""
    if left_out.issuperset(item.cache_key for item in plan.missing):
        raise BudgetExhausted("left out of the sweep's one purchase")
    raise RunError(
        f"a run wants {plan.units:,} queries beyond the sweep's one purchase: files or the vendor's model have changed "
        "since; choose another report.out, and what is bought already costs nothing"
    )
