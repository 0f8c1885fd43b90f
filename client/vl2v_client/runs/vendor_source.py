"""The vendor as a source of answers: choose within the budget, buy, and join what was bought.

What a run trains on is written down when its purchase is done: a run that goes on buys nothing and uses the same.
Without it, whatever came into the cache after a purchase that was cut short would change the targets of a run that is
half trained, and the same command would spend its cap again. The name under which it buys is written down too, so that
a run which is killed while it buys goes on under what is left of its caps.
"""

import secrets
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vl2v_client.buying.context import PurchaseContext, plan_run
from vl2v_client.buying.purchase import buy, check_images
from vl2v_client.cache.memo import RunCache, SessionCache
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted, RunError
from vl2v_client.core.progress import Progress
from vl2v_client.data.folder import DomainDataset
from vl2v_client.evaluation.accuracy import Choices
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.reports.pages import Bill
from vl2v_client.reports.report import ReportRow
from vl2v_client.runs.bought_source import BoughtSource
from vl2v_client.runs.method_training import RunData, load_run_data
from vl2v_client.runs.purchase_sharing import hand_on
from vl2v_client.runs.query_selection import choose_queries
from vl2v_client.runs.run_folder import LEFT_OUT_FILE, PURCHASE_FILE, USED_FILE, VECTORS_FILE, RunFolder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.sold_answers import keep_used, purchase_bill, teacher_on_training_images
from vl2v_client.runs.source import Announce, Source
from vl2v_client.runs.student_features import run_features
from vl2v_client.runs.teacher_answers import text_classifier
from vl2v_client.student.train.devices import process_count
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.student.train.training_data import LabelledViews
from vl2v_client.teacher.stored_vectors import StoredFetch, VectorFile, copy_to_disk


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

    def plan(self, choice: QueryChoice, *, listed: DomainDataset | None = None, progress: Progress) -> PlannedRun:
        """Name the queries of a run, and what they cost; its data set may be `listed` already.

        Raises:
            DataError: The data set cannot be used.
            VendorError: The vendor refuses, or was never met and cannot be reached.
        """
        return plan_run(choice, self.context, listed=listed, progress=progress)

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
        cache: RunCache = self.cache
        used = [*planned.plan.used_image_keys, *planned.plan.text_keys]
        file: VectorFile
        if process_count() > 1:  # the others read the same file; none keeps features, so that all have the same
            file = shared = hand_on(planned, self.cache, folder.settings_sha, folder.path / VECTORS_FILE)
            cache = SessionCache(shared.files())
        else:
            width = planned.plan.teacher.embedding_dim
            file = copy_to_disk(self.cache.get_many, used, dimension=width, folder=folder.path)
        fetch = StoredFetch(file, {*used})
        terms: dict[str, Any] = {"allow_missing": some_missing, "progress": progress}
        return planned, load_run_data(settings, planned, fetch, folder, cache, **terms)

    def teacher_row(
        self, planned: PlannedRun, data: RunData, target: LabelledViews | None
    ) -> tuple[ReportRow, Choices | None]:
        """Score the teacher on the training images' first views, which are bought anyway; the target costs extra."""
        return teacher_on_training_images(planned, data), None

    def bill(self, settings: RunSettings, planned: PlannedRun, exported: TrainingResult) -> Bill:
        """Return the queries that the exported method reads and their price, whenever it was paid; others apart."""
        return purchase_bill(self.cache.records.paid, settings, planned, exported)

    def share(
        self, planned: PlannedRun, folder: RunFolder, of: str, announce: Announce, *, progress: Progress
    ) -> tuple[PlannedRun, Source]:
        """Buy for all runs of a sweep, and leave what is bought in its folder, as one file.

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
        hand_on(planned, self.cache, of, folder.path / VECTORS_FILE)
        return planned, BoughtSource.of_sweep(folder.path)

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
        used = keep_used(planned, folder, self.cache.missing)
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
