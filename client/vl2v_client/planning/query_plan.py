"""A query plan: which vectors a run needs, which of them are here, and what the rest costs. Buys nothing."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import accumulate

from vl2v_client.cache.purchases import Intent
from vl2v_client.cache.records import NOTHING, Paid
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.errors import BudgetExhausted
from vl2v_client.core.html_tables import html_table
from vl2v_client.core.progress import Progress, format_micro, format_seconds, silent
from vl2v_client.core.values import TeacherModel
from vl2v_client.planning.choice import RunQueries
from vl2v_client.planning.queries import ImageQuery, PictureQuery, Query, TextQuery, hash_images, identity_of
from vl2v_client.planning.render_spool import RenderSpool
from vl2v_contract.identity import Modality, text_sha


@dataclass(frozen=True, slots=True)
class Limits:
    """What a purchase may spend; None is no limit.

    Attributes:
        max_queries: The user's cap on new queries.
        max_cost_micro: The user's cap on their price, in micro-units.
        remaining_units: What the vendor's budget holds.
        spent: What counts for the caps already.
        task: Name for what is bought under these caps: all purchases of that name, whichever call made them, count.
    """

    max_queries: int | None = None
    max_cost_micro: int | None = None
    remaining_units: int | None = None
    spent: Paid = NOTHING
    task: str | None = None

    def exceeded_by(self, units: int, amount_micro: int, currency: str) -> str | None:
        """Return which cap or budget cannot hold so many new queries, and how to widen it; None if all can."""
        if not units:
            return None
        bought = f", and {self.spent.units:,} queries are bought" if self.spent.units else ""
        in_all, price = units + self.spent.units, amount_micro + self.spent.amount_micro
        if self.max_queries is not None and in_all > self.max_queries:
            return f"purchase.max_queries allows {self.max_queries:,}{bought}: raise it to {in_all:,}"
        if self.max_cost_micro is not None and price > self.max_cost_micro:
            allowed, needed = (format_micro(micro, currency) for micro in (self.max_cost_micro, price))
            return f"purchase.max_cost allows {allowed}{bought}: raise it to {needed}"
        if self.remaining_units is not None and units > self.remaining_units:
            short = units - self.remaining_units
            return f"the account has {self.remaining_units:,} left: ask the vendor for a top-up of {short:,}"
        return None


@dataclass(frozen=True, slots=True)
class PlannedItem(Intent):
    """One vector to buy, with the query to make it from; content that several queries share is bought once.

    Attributes:
        is_expired: Charged earlier, its answer lost, and no longer kept by the vendor: sent again, it costs nothing.
    """

    query: Query
    is_expired: bool


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """What a run needs.

    Attributes:
        image_keys: Cache key of each image query, in order, as `text_keys` of the texts; equal content has equal keys.
        missing: What has to be sent, each content once; texts first, since nothing trains without them.
        image_files: Distinct files and pictures among the image queries.
        cached: Distinct vectors that are here already.
        seconds: Estimate of the time to buy; None if this vendor's rate was never measured.
        chosen: Cache keys of the image queries that a selection within a budget has left; None if there was none.
        spool: Views that were rendered to make the plan.
    """

    teacher: TeacherModel
    image_keys: tuple[str, ...]
    text_keys: tuple[str, ...]
    missing: tuple[PlannedItem, ...]
    image_files: int
    cached: int
    seconds: float | None
    chosen: frozenset[str] | None = None
    spool: RenderSpool | None = field(default=None, compare=False, repr=False)

    @property
    def used_image_keys(self) -> tuple[str, ...]:
        """The distinct image vectors that the run uses, bought or here already."""
        return tuple(key for key in dict.fromkeys(self.image_keys) if self.chosen is None or key in self.chosen)

    @property
    def units(self) -> int:
        """New queries; what is expired has been paid."""
        return sum(not item.is_expired for item in self.missing)

    @property
    def amount_micro(self) -> int:
        """Their price."""
        return sum(item.unit_price_micro for item in self.missing if not item.is_expired)

    @property
    def currency(self) -> str:
        """Currency of every amount in the plan."""
        return self.teacher.image_price.currency

    @property
    def new_bytes(self) -> int:
        """About how much the cache will grow."""
        overhead = 700  # keys, intent, index pages and the item's share of a receipt
        return len(self.missing) * (2 * self.teacher.embedding_dim + overhead)

    def facts(self, left_units: int | None = None) -> dict[str, str]:
        """Return the plan's totals for people; `left_units` is what the account has left, if known."""
        facts = {
            "images": f"{self.image_files:,}",
            "views": f"{len(self.image_keys):,}",
            "texts": f"{len(self.text_keys):,}",
            "in the cache": f"{self.cached:,}",
            "to buy": f"{self.units:,}",
            "price": format_micro(self.amount_micro, self.currency),
            "disk": f"{self.new_bytes / 1e6:,.1f} MB",
        }
        if free := len(self.missing) - self.units:
            facts["to buy"] += f", and {free:,} that are charged and whose answers were lost"
        if self.chosen is not None:
            facts["views"] += f", of which {len(self.chosen):,} are chosen"
        if self.seconds is not None and self.units:
            facts["time"] = f"about {format_seconds(self.seconds)}"
        if left_units is not None:
            short = self.units - left_units
            facts["budget left"] = f"{left_units:,}" + (f" ({short:,} too few)" if short > 0 else "")
        return facts

    def _repr_html_(self) -> str:
        return html_table(f"Plan: {self.teacher.id}", self.facts().items())

    def check_caps(self, limits: Limits) -> None:
        """Refuse a purchase that a cap or the vendor's budget cannot hold.

        Raises:
            BudgetExhausted: The message says which, and what to do.
        """
        if (why := limits.exceeded_by(self.units, self.amount_micro, self.currency)) is not None:
            cost = f"{self.units:,} new queries ({format_micro(self.amount_micro, self.currency)})"
            raise BudgetExhausted(
                f"{cost}, but {why}, plan fewer views, or buy what fits: `buy` and `distill` take purchase.partial",
                units=self.units,
                left=self.affordable(limits).units,
            )

    def affordable(self, limits: Limits) -> "QueryPlan":
        """Return what is expired, then as many new queries, in order, as every limit holds beside what is spent."""
        expired = [item for item in self.missing if item.is_expired]
        new = [item for item in self.missing if not item.is_expired]
        if limits.remaining_units is not None:
            new = new[: max(0, limits.remaining_units)]
        if limits.max_queries is not None:
            new = new[: max(0, limits.max_queries - limits.spent.units)]
        if limits.max_cost_micro is not None:
            left, sums = limits.max_cost_micro - limits.spent.amount_micro, accumulate(i.unit_price_micro for i in new)
            new = [item for item, amount_micro in zip(new, sums, strict=True) if amount_micro <= left]
        return replace(self, missing=(*expired, *new))


def make_plan(
    image_queries: Sequence[ImageQuery | PictureQuery],
    text_queries: Sequence[TextQuery],
    teacher: TeacherModel,
    cache: EmbeddingCache,
    *,
    progress: Progress = silent,
) -> QueryPlan:
    """Plan a run's queries, in the order that the plan's keys keep; sends nothing.

    Raises:
        DataError: An image cannot be read.
    """
    spool = RenderSpool(cache.path.parent)
    contents = hash_images(image_queries, cache, size=teacher.image_size, spool=spool, progress=progress)
    named = partial(_name, teacher, cache.item_secret, cache.purchases.expired(teacher.ledger_id))
    texts = [named(query, text_sha(query.text)) for query in text_queries]
    images = [named(query, content) for query, content in zip(image_queries, contents, strict=True)]
    distinct = {item.cache_key: item for item in reversed([*texts, *images])}
    missing = cache.missing(item.cache_key for item in [*texts, *images])
    rate = cache.vendors.images_per_second(teacher.ledger_id)
    return QueryPlan(
        teacher=teacher,
        image_keys=tuple(item.cache_key for item in images),
        text_keys=tuple(item.cache_key for item in texts),
        missing=tuple(distinct[key] for key in missing),
        image_files=len({query.source for query in image_queries}),
        cached=len(distinct) - len(missing),
        seconds=None if rate is None else len(missing) / rate,
        spool=spool,
    )


def still_missing(plan: QueryPlan, cache: EmbeddingCache) -> QueryPlan:
    """Return the plan without what has come into the cache since, and with what is known to be charged by now."""
    lacking = set(cache.missing(item.cache_key for item in plan.missing))
    expired = cache.purchases.expired(plan.teacher.ledger_id)
    missing = tuple(
        item if item.is_expired == (item.item_key in expired) else replace(item, is_expired=not item.is_expired)
        for item in plan.missing
        if item.cache_key in lacking
    )
    return replace(plan, missing=missing, cached=plan.cached + len(plan.missing) - len(missing))


def _name(teacher: TeacherModel, secret: bytes, expired: Set[str], query: Query, content_sha: str) -> PlannedItem:
    modality: Modality = "text" if isinstance(query, TextQuery) else "image"
    price = teacher.image_price if modality == "image" else teacher.text_price
    identity = identity_of(teacher, modality, content_sha)
    cache_key, item_key = identity.cache_key(), identity.item_key(secret)
    return PlannedItem(item_key, cache_key, modality, content_sha, price.unit_price_micro, query, item_key in expired)


@dataclass(frozen=True)
class PlannedRun:
    """A run's queries with their plan: what of them is here, and what the rest costs."""

    queries: RunQueries
    plan: QueryPlan

    def cut(self, image_keys: Sequence[str]) -> "PlannedRun":
        """Return the run with some image queries only, by cache key, each once, in the order to buy after the texts."""
        plan, chosen = self.plan, frozenset(image_keys)
        missing = {item.cache_key: item for item in plan.missing}
        texts = [item for item in plan.missing if item.modality == "text"]
        kept = (*texts, *(missing[key] for key in image_keys if key in missing))
        pairs = zip(self.queries.images, plan.image_keys, strict=True)
        plan = replace(
            plan,
            missing=kept,
            image_files=len({query.sample.path for query, key in pairs if key in chosen}),
            cached=len(set(plan.text_keys)) + len(image_keys) - len(kept),
            seconds=None if plan.seconds is None else plan.seconds * len(kept) / max(1, len(missing)),
            chosen=chosen,
        )
        return replace(self, plan=plan)
