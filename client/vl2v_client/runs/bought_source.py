"""A purchase that is done as a source of answers: one file, no vendor, no SQLite, on any number of hosts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vl2v_client.cache.feature_store import FeatureFolder
from vl2v_client.cache.memo import SessionCache
from vl2v_client.cache.purchase_file import PurchaseFile
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import RunError
from vl2v_client.core.progress import Progress
from vl2v_client.data.folder import DomainDataset
from vl2v_client.evaluation.accuracy import Choices
from vl2v_client.planning.choice import QueryChoice, collect_queries
from vl2v_client.planning.queries import identity_of, view_keys
from vl2v_client.planning.query_plan import PlannedRun, QueryPlan
from vl2v_client.reports.pages import Bill, SharedPurchase, SweepBill
from vl2v_client.reports.report import ReportRow
from vl2v_client.runs.method_training import RunData, load_run_data
from vl2v_client.runs.purchase_sharing import beyond_the_purchase
from vl2v_client.runs.run_folder import FEATURES_FOLDER, USED_FILE, VECTORS_FILE, RunFolder, holds_run, open_run_folder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.runs.sold_answers import keep_used, purchase_bill, teacher_on_training_images
from vl2v_client.runs.source import Source, billable_keys
from vl2v_client.runs.teacher_answers import text_classifier
from vl2v_client.student.loss.methods import METHODS
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.student.train.training_data import LabelledViews
from vl2v_client.teacher.stored_vectors import StoredFetch
from vl2v_client.teacher.text_classifier import zero_shot_logits
from vl2v_contract.identity import text_sha


@dataclass(frozen=True)
class BoughtSource(Source):
    """Reads the answers from a purchase file. It buys nothing.

    Attributes:
        file: The file.
        features: Keeps what frozen students say, for other runs of a sweep; `None` keeps nothing.
    """

    file: PurchaseFile
    features: FeatureFolder | None = None
    _session: SessionCache = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_session", SessionCache(self.file.files(), self.features))

    @classmethod
    def of_sweep(cls, out: Path) -> "BoughtSource":
        """Return what a sweep has bought, by its folder.

        Raises:
            RunError: The file is damaged.
        """
        return cls(PurchaseFile(out / VECTORS_FILE), FeatureFolder(out / FEATURES_FOLDER))

    @classmethod
    def of_run(cls, settings: RunSettings, out: Path) -> "BoughtSource | None":
        """Return what a run has bought, if it is done with that and its folder holds it as a file.

        Raises:
            RunError: The file is damaged.
        """
        if not (out / VECTORS_FILE).exists() or not holds_run(out, settings.to_json(None)):
            return None
        folder, file = open_run_folder(out), PurchaseFile(out / VECTORS_FILE)
        if folder.recall(USED_FILE) is None:
            return None
        return cls(file) if file.of == folder.settings_sha else None

    @property
    def cache(self) -> SessionCache:
        """What this process remembers of files."""
        return self._session

    def plan(self, choice: QueryChoice, *, listed: DomainDataset | None = None, progress: Progress) -> PlannedRun:
        """Name the queries of a run, all of which were part of the purchase; its data set may be `listed` already.

        Raises:
            DataError: The data set cannot be used.
            RunError: A query was not: its file has changed since.
        """
        teacher, cache = self.file.teacher, self._session
        queries = collect_queries(choice, cache, size=teacher.image_size, listed=listed, progress=progress)
        names = view_keys(queries.images, cache, size=teacher.image_size, progress=progress)
        image_keys = []
        for query, key in zip(queries.images, self.file.keys_of_views(names), strict=True):
            if key is None:
                raise beyond_the_purchase(query.name)
            image_keys.append(key)
        text_keys = tuple(identity_of(teacher, "text", text_sha(one.text)).cache_key() for one in queries.texts)
        plan = QueryPlan(
            teacher=teacher,
            image_keys=tuple(image_keys),
            text_keys=text_keys,
            missing=(),
            image_files=len({query.source for query in queries.images}),
            cached=len({*image_keys, *text_keys}),
            seconds=None,
        )
        return PlannedRun(queries, plan)

    def obtain(
        self, settings: RunSettings, planned: PlannedRun, folder: RunFolder, *, progress: Progress
    ) -> tuple[PlannedRun, RunData]:
        """Join the images with what was bought of them; a run that goes on stays with what it trains on.

        Raises:
            RunError: The folder's run used images that have changed since.
            DataError: A text was not bought.
        """
        wanted, texts = planned.plan.used_image_keys, list(dict.fromkeys(planned.plan.text_keys))
        record = folder.recall(USED_FILE)
        if record is None:
            used = keep_used(planned, folder, self.file.missing)
        else:
            before = frozenset(record["keys"])
            if not before.issubset([*planned.plan.image_keys, *texts]):
                raise RunError(
                    f"{folder.path} trains on images that have changed since: put them back, or choose another "
                    "report.out"
                )
            used = [key for key in wanted if key in before]
        planned = planned.cut(used)
        fetch = StoredFetch(self.file, {*used, *texts})
        data = load_run_data(settings, planned, fetch, folder, self._session, allow_missing=True, progress=progress)
        return planned, data

    def teacher_row(
        self, planned: PlannedRun, data: RunData, target: LabelledViews | None
    ) -> tuple[ReportRow, Choices | None]:
        """Score the teacher on the training images' first views."""
        return teacher_on_training_images(planned, data), None

    def bill(self, settings: RunSettings, planned: PlannedRun, exported: TrainingResult) -> Bill:
        """Return the queries that the exported method reads and their price; others apart."""
        return purchase_bill(self.file.paid, settings, planned, exported)

    def sweep_bill(self, training: TrainingConfig, methods: Sequence[str], planned: PlannedRun) -> SweepBill:
        """Return what a sweep's one purchase cost, and how many of its queries each method reads."""
        plan = planned.plan
        paid = self.file.paid([*plan.used_image_keys, *plan.text_keys])
        amount_micro = sum(of_kind.amount_micro for of_kind in paid.values())
        queries = {}
        for name in methods:
            method = METHODS[name](training)
            images, texts = billable_keys(method, training, planned)
            queries[method.name] = sum(of_kind.units for of_kind in self.file.paid([*images, *texts]).values())
        return SharedPurchase(paid["image"].units, paid["text"].units, amount_micro, plan.currency), queries

    def teacher_accuracy(
        self, planned: PlannedRun, targets: Sequence[str], rows: Mapping[str, ReportRow]
    ) -> dict[str, float]:
        """Score the teacher on first views of a target's training part: they were bought where it is a source."""
        queries, plan = planned.queries, planned.plan
        if not queries.asked_views:
            return {}
        first_views = plan.image_keys[:: queries.asked_views]
        vectors = self.file.get_many(first_views)
        classifier = text_classifier(planned, self.file.get_many)
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
