"""A source of the teacher's answers: a vendor who sells them, or a teacher on this machine."""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from vl2v_client.cache.memo import RunCache
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.progress import Progress
from vl2v_client.data.folder import DomainDataset
from vl2v_client.evaluation.accuracy import Choices
from vl2v_client.planning.choice import QueryChoice
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.reports.pages import Bill, SweepBill
from vl2v_client.reports.report import ReportRow
from vl2v_client.runs.method_training import RunData
from vl2v_client.runs.run_folder import RunFolder
from vl2v_client.runs.settings import RunSettings
from vl2v_client.student.loss.methods import Method, asks_about_images, asks_about_texts
from vl2v_client.student.model.spec import StudentSpec
from vl2v_client.student.train.results import TrainingResult
from vl2v_client.student.train.training_data import LabelledViews


def billable_keys(
    method: Method, config: TrainingConfig, planned: PlannedRun
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the cache keys of the image and of the text queries that a method reads: its bill has no others."""
    images = planned.plan.used_image_keys if asks_about_images(method, config) else ()
    return images, planned.plan.text_keys if asks_about_texts(method) else ()


Announce = Callable[[PlannedRun], str]  # says, in a sentence, what a sweep is going to buy


class Source(Protocol):
    """Answers the queries of runs: `VendorSource`, `BoughtSource` and `LocalSource`.

    What it does by itself costs nothing.
    """

    @property
    def cache(self) -> RunCache:
        """Remembers hashes of files and views, and features of frozen students."""

    def tower(self) -> StudentSpec | None:
        """Describe the image tower that white-box methods train; `None` if the teacher's weights are not here."""
        return None

    def plan(self, choice: QueryChoice, *, listed: DomainDataset | None = None, progress: Progress) -> PlannedRun:
        """Name the queries of a run, and what they cost; its data set may be `listed` already."""

    def obtain(
        self, settings: RunSettings, planned: PlannedRun, folder: RunFolder, *, progress: Progress
    ) -> tuple[PlannedRun, RunData]:
        """Get the answers; return the plan of what is trained on, and the data to train on."""

    def teacher_row(
        self, planned: PlannedRun, data: RunData, target: LabelledViews | None
    ) -> tuple[ReportRow, Choices | None]:
        """Return the teacher's own row of the report, as far as it costs no query, and its choices on the target."""

    def bill(self, settings: RunSettings, planned: PlannedRun, exported: TrainingResult) -> Bill:
        """Return what the answers cost that the exported student learnt from."""

    def share(
        self, planned: PlannedRun, folder: RunFolder, of: str, announce: Announce, *, progress: Progress
    ) -> "tuple[PlannedRun, Source]":
        """Get the answers for all runs of a sweep; return their plan, and a source for the runs, which buys nothing.

        `of` names what decides the plan.
        """
        return planned, self

    def sweep_bill(self, training: TrainingConfig, methods: Sequence[str], planned: PlannedRun) -> SweepBill:
        """Return what a sweep's answers cost, and how many queries each of its methods reads."""
        return None, {}

    def teacher_accuracy(
        self, planned: PlannedRun, targets: Sequence[str], rows: Mapping[str, ReportRow]
    ) -> dict[str, float]:
        """Return the zero-shot teacher's accuracy on the 80 % of each target that DomainBed's tables use, if known.

        Args:
            planned: What the sweep has bought.
            targets: Domains that were held out.
            rows: The teacher's row of one report of each target.
        """
        return {}
