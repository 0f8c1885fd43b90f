"""Carrying out a purchase: several batches at a time, each rendered, reserved, sent and stored."""

import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from PIL import Image

from vl2v_client.api.client import ImageForm
from vl2v_client.buying.context import PurchaseContext
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.deliveries import Delivery
from vl2v_client.core.errors import (
    BudgetExhausted,
    ClientError,
    DataError,
    FailedQuery,
    VendorChanged,
    VendorError,
    VendorUnavailable,
)
from vl2v_client.core.progress import Progress, format_micro
from vl2v_client.core.values import RGBImage, TeacherModel
from vl2v_client.data.images import encode_png, load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.planning.file_contents import stamp_of
from vl2v_client.planning.queries import PictureQuery, Query, TextQuery, pixels_sha
from vl2v_client.planning.query_plan import PlannedItem, QueryPlan
from vl2v_client.planning.render_spool import RenderSpool
from vl2v_contract.records import Receipt

Batch = list[PlannedItem]


@dataclass(slots=True)
class PurchaseReport:
    """What a purchase brought.

    Attributes:
        billed_units: Queries paid for now.
        replayed_units: Vectors that were paid for earlier and came free.
        failed: Queries without a vector.
        receipts: One per billed request.
    """

    currency: str
    billed_units: int = 0
    replayed_units: int = 0
    amount_micro: int = 0
    failed: list[FailedQuery] = field(default_factory=list)
    receipts: list[Receipt] = field(default_factory=list)

    def add(self, delivery: Delivery) -> None:
        """Count a delivery's items."""
        self.replayed_units += sum(item.status != "billed" for item in delivery.items)
        if delivery.billed is not None:
            self.billed_units += delivery.billed.entry.units
            self.amount_micro += delivery.billed.entry.amount_micro
            self.receipts.append(delivery.billed)


class Buyer:
    """One purchase under way: the main thread hands out batches and counts, workers carry them out."""

    def __init__(
        self, plan: QueryPlan, purchase_id: int, context: PurchaseContext, report: PurchaseReport, progress: Progress
    ) -> None:
        self._plan, self._teacher, self._purchase_id = plan, plan.teacher, purchase_id
        self._client, self._cache, self._workers = context.vendor, context.cache, context.workers
        self._report, self._progress = report, progress
        self._waiting = deque(cut_batches(plan.missing, plan.teacher))
        self._parked: list[tuple[Batch, VendorUnavailable]] = []
        self._unanswered: set[str] = set()  # item keys that were sent once, and may be charged
        self._stopped_by: ClientError | None = None

    def run(self) -> None:
        """Carry out every batch, or as many as the vendor lets us, and raise what stopped the rest.

        Raises:
            ClientError: What stopped the purchase; all that came before is kept.
        """
        started, done_units, report = time.monotonic(), 0, self._report
        running: dict[Future[Delivery], Batch] = {}
        with ThreadPoolExecutor(self._workers, thread_name_prefix="buy") as pool:
            try:
                while running or (self._waiting and self._stopped_by is None):
                    while self._waiting and self._stopped_by is None and len(running) < self._workers:
                        batch = self._waiting.popleft()
                        running[pool.submit(self._deliver, batch)] = batch
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        done_units += self._take(future, running.pop(future))
                    spent = format_micro(report.amount_micro, report.currency)
                    facts = {"billed": f"{report.billed_units:,}", "replayed": f"{report.replayed_units:,}"}
                    self._progress("buy", done_units, len(self._plan.missing), {"spent": spent} | facts)
            except BaseException:
                self._client.cancel()
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        if report.billed_units >= 64:  # a rate of fewer says little
            rate = report.billed_units / (time.monotonic() - started)
            self._cache.vendors.remember_rate(self._teacher.ledger_id, rate)
        if self._stopped_by is not None:
            raise self._stopped_by
        if self._parked:
            raise self._parked[0][1]

    def _deliver(self, batch: Batch) -> Delivery:
        """Render, reserve, send, store; in a worker thread."""
        teacher, purchases = self._teacher, self._cache.purchases
        form = self._client.image_form(teacher) if batch[0].modality == "image" else None
        images = {} if form is None else render_images(batch, teacher.image_size, form, self._plan.spool)
        keys = [item.item_key for item in purchases.reserve(self._purchase_id, teacher, batch)]
        if not keys:
            return Delivery()
        is_free = batch[0].is_expired
        try:
            if form is None:
                texts = {item.item_key: item.query.text for item in batch if isinstance(item.query, TextQuery)}
                delivery = self._client.embed_texts([texts[key] for key in keys], keys, teacher, is_free=is_free)
            else:
                chosen = [images[key] for key in keys]
                delivery = self._client.embed_images(chosen, keys, teacher, form=form, is_free=is_free)
        except VendorError as error:
            if error.was_refused:
                purchases.release([key for key in keys if key not in self._unanswered])
            raise
        if (keyring := self._client.keyring) is not None:
            # the vendor may have changed to another key meanwhile: with it, its receipts can be checked offline
            self._cache.vendors.remember_keys(keyring.ledger_id, keyring.keys)
        keep(delivery, self._cache, teacher.ledger_id)
        return delivery

    def _take(self, future: Future[Delivery], batch: Batch) -> int:
        """Count a finished batch; returns the queries that are done with."""
        try:
            delivery = future.result()
        except VendorUnavailable as error:
            self._parked.append((batch, error))
            if not error.was_refused:
                self._unanswered.update(item.item_key for item in batch)
            if len(self._parked) >= self._workers:
                self._stopped_by = self._stopped_by or error
            return 0
        except ClientError as error:
            self._stopped_by = self._stopped_by or error
            return 0
        # The vendor is alive, so batches that failed meanwhile get another turn.
        self._waiting.extend(parked for parked, _ in self._parked)
        self._parked.clear()
        self._report.add(delivery)
        names = {item.item_key: item.query.name for item in batch} if delivery.failed else {}
        for failed in delivery.failed:
            if failed.code == "budget_exhausted":
                self._stopped_by = self._stopped_by or BudgetExhausted(failed.detail, code=failed.code, left=0)
            else:
                self._report.failed.append(FailedQuery(names[failed.item_key], failed.code, failed.detail))
        return len(batch)


def cut_batches(items: Sequence[PlannedItem], teacher: TeacherModel) -> list[Batch]:
    """Return requests of one modality each, all new or all expired, in order, within what the vendor accepts."""
    overhead = 1024  # multipart headers, the item key, and PNG's own framing
    largest_image = 3 * teacher.image_size**2 + teacher.image_size + overhead
    limits = {
        "image": min(64, teacher.max_items, teacher.max_request_bytes // largest_image),
        "text": min(256, teacher.max_items),
    }
    batches = []
    for (modality, _), group in groupby(items, key=lambda item: (item.modality, item.is_expired)):
        run, size = list(group), max(1, limits[modality])
        batches += [run[start : start + size] for start in range(0, len(run), size)]
    return batches


def render_images(batch: Batch, size: int, form: ImageForm, spool: RenderSpool | None = None) -> dict[str, bytes]:
    """Return the images of a batch at `size`, from the spool or the files as they are now, by item key.

    Each is RGB8 pixels `[S, S, 3]`, or lossless PNG.

    Raises:
        DataError: A file cannot be read, or no longer shows what was planned.
    """
    loaded: dict[Path, Image.Image] = {}
    images = {}
    for item in batch:
        pixels = _render(item.query, item.content_sha, size, spool, loaded)
        if pixels_sha(pixels) != item.content_sha:
            what = f"{item.query.name} has changed since it was planned"
            raise DataError(f"{what}; nothing of it was sent: run the command again")
        images[item.item_key] = pixels.tobytes() if form == "rgb8" else encode_png(pixels)
    return images


def _render(
    query: Query, content_sha: str, size: int, spool: RenderSpool | None, loaded: dict[Path, Image.Image]
) -> RGBImage:
    assert not isinstance(query, TextQuery), "a batch is of one modality"
    if isinstance(query, PictureQuery):
        return query.render(size)
    kept = None if spool is None else spool.take(content_sha, size, stamp_of(query.source))
    if kept is not None:
        return kept
    if query.source not in loaded:
        loaded.clear()  # views of one file are neighbours; older files are not needed again
        loaded[query.source] = load_rgb(query.source)
    return render_view(loaded[query.source], query.view, size)


def keep(delivery: Delivery, cache: EmbeddingCache, ledger_id: str) -> None:
    """Store a delivery; what it shows of earlier charges, whose answers were lost, is held to the prices agreed to.

    Raises:
        VendorChanged: Something was paid at a price that was never agreed to; the receipt is kept, as the proof.
        CacheError: The delivery cannot be stored.
    """
    cache.purchases.store(delivery)
    earlier = [receipt.entry for receipt in delivery.receipts if receipt is not delivery.billed]
    agreed = cache.records.agreed_prices(ledger_id) if earlier else set()
    for entry in earlier:
        if (entry.price_id, entry.unit_price_micro, entry.currency) not in agreed:
            paid = format_micro(entry.unit_price_micro, entry.currency)
            raise VendorChanged(
                f"the vendor has charged {paid} for each query of request {entry.request_id}, a price that was never "
                "agreed to; nothing more was bought. The receipt is kept: run `vl2v-client audit` and ask the vendor"
            )
