"""At most what a run needs and the cache lacks, where rendering every view takes too long. Buys nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted
from vl2v_client.core.progress import Progress, format_micro, format_seconds, silent
from vl2v_client.core.values import TeacherModel
from vl2v_client.planning.file_contents import hash_files
from vl2v_client.planning.queries import TextQuery
from vl2v_client.planning.query_plan import Limits, QueryPlan, make_plan


@dataclass(frozen=True, slots=True)
class PlanEstimate:
    """At most what a run needs and the cache lacks; what is not said here is as in `QueryPlan`.

    Files with equal bytes are counted once. Views that look alike though their files differ, and views that were
    bought before, are counted all the same: only rendering tells.

    Attributes:
        texts: The plan of the text queries, which is exact.
        different_files: Number of different contents that the files have.
        views: Image queries before any double is left out.
    """

    texts: QueryPlan
    image_files: int
    different_files: int
    views: int
    units: int
    amount_micro: int
    seconds: float | None

    def facts(self, left_units: int | None = None) -> dict[str, str]:
        """Return the totals for people, as `QueryPlan.facts`."""
        facts = {
            "images": f"{self.image_files:,}, of which {self.different_files:,} differ",
            "views": f"{self.views:,}, none of them rendered",
            "texts": f"{len(self.texts.text_keys):,}",
            "to buy": f"at most {self.units:,}",
            "price": f"at most {format_micro(self.amount_micro, self.texts.currency)}",
        }
        if self.seconds is not None:
            facts["time"] = f"at most {format_seconds(self.seconds)}"
        if left_units is not None:
            facts["budget left"] = f"{left_units:,}"
        return facts

    def check_caps(self, limits: Limits) -> None:
        """Refuse a bound that a cap or the vendor's budget may not hold.

        Raises:
            BudgetExhausted: The message says which, and what to do.
        """
        if (why := limits.exceeded_by(self.units, self.amount_micro, self.texts.currency)) is not None:
            cost = f"{self.units:,} new queries ({format_micro(self.amount_micro, self.texts.currency)})"
            raise BudgetExhausted(f"at most {cost}, but {why}, or make an exact plan", units=self.units)


def estimate_plan(
    files: Mapping[Path, Sequence[str]],
    views_per_file: int,
    text_queries: Sequence[TextQuery],
    teacher: TeacherModel,
    cache: EmbeddingCache,
    *,
    progress: Progress = silent,
) -> PlanEstimate:
    """Return the bound for absolute paths by an absolute folder above them; sends and renders nothing.

    Raises:
        DataError: A file cannot be read.
    """
    texts, rate = make_plan([], text_queries, teacher, cache), cache.vendors.images_per_second(teacher.ledger_id)
    hashes = (hash_files(folder, paths, cache, progress=progress) for folder, paths in files.items())
    different = set(chain.from_iterable(of_folder.values() for of_folder in hashes))
    count, images = sum(map(len, files.values())), len(different) * views_per_file
    units = images + texts.units
    return PlanEstimate(
        texts=texts,
        image_files=count,
        different_files=len(different),
        views=count * views_per_file,
        units=units,
        amount_micro=images * teacher.image_price.unit_price_micro + texts.amount_micro,
        seconds=None if rate is None else units / rate,
    )
