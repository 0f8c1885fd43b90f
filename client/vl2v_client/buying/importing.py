"""Taking over what other software bought on this account: vectors and receipts come into the cache, free.

A charge names its items by keys and by the hashes of their vectors, and not by what was sent. The user's recordings
say what was sent. Each recorded vector's hash finds its charge on the statement; the content is then sent again under
the charge's own item key, in a request that may bill nothing. The vendor refuses a content that is not the key's, and
else hands over the vector with the receipt, which are checked as those of any purchase.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from vl2v_client.api.recordings import RecordedItem, read_recordings
from vl2v_client.buying.context import PurchaseContext, check_account, meet, read_account, trust_vendor
from vl2v_client.cache.purchases import Intent
from vl2v_client.core.deliveries import Delivery
from vl2v_client.core.errors import DataError, FailedQuery, NotAuthorized, VendorError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import PriceTag, TeacherModel
from vl2v_client.data.images import image_size
from vl2v_client.data.sent_files import sent_content
from vl2v_client.planning.queries import identity_of
from vl2v_contract.identity import sha256_hex, text_sha
from vl2v_contract.records import Receipt

_BATCH_ITEMS, _BATCH_BYTES = 64, 8 * 2**20
MISMATCH = "item_key_mismatch"


@dataclass(slots=True)
class ImportReport:
    """What an import brought.

    Attributes:
        items: Charged items that came into the cache.
        amount_micro: What they had cost.
        twice: Those whose content the cache had already.
        unasked: Image files of which the vendor made other pixels than a plan asks about: no run uses them.
        known: Recorded items that an earlier import, or recording, has brought.
        failed: Recorded items that did not come.
    """

    currency: str
    items: int = 0
    amount_micro: int = 0
    twice: int = 0
    unasked: int = 0
    known: int = 0
    failed: list[FailedQuery] = field(default_factory=list)


class _Claim(NamedTuple):
    """A recorded item, and the charge that it may be of."""

    item_key: str
    item: RecordedItem


def import_purchases(paths: Sequence[Path], context: PurchaseContext, *, progress: Progress = silent) -> ImportReport:
    """Bring recorded purchases of other software into the cache. Buys nothing.

    Args:
        paths: Recordings, as `api.recordings` reads them.
        context: The vendor, with a key that may ask for embeddings and read the bill, and the cache.
        progress: Gets the recorded items that are done, as phase "import".

    Raises:
        DataError: A recording cannot be read; what came before is kept.
        VendorChanged: The key is of another account than the cache's books.
        VendorError: The vendor refuses, or an answer fails a check.
    """
    teacher = meet(context)
    waiting = f"a purchase is using the cache {context.cache.path}; waiting for it to end"
    with context.cache.purchase_lock(lambda: context.notify(waiting)):
        if (account := read_account(context.vendor)) is None:
            raise NotAuthorized(
                "the key may not read the bill, on which the charges stand: use one with the scopes embed and billing"
            )
        check_account(account, context.cache)
        trust_vendor(context.vendor, context.cache, ledger_id=teacher.ledger_id)
        return _Import(paths, teacher, context, progress).run()


class _Import:
    """One import under way."""

    def __init__(
        self, paths: Sequence[Path], teacher: TeacherModel, context: PurchaseContext, progress: Progress
    ) -> None:
        self._paths, self._teacher, self._progress = paths, teacher, progress
        self._vendor, self._cache = context.vendor, context.cache
        self._report = ImportReport(teacher.image_price.currency)
        self._open: dict[str, list[str]] = {}  # item keys of charges that are not here yet, by the vector's hash
        self._tried: set[tuple[str, str]] = set()  # item key and content
        self._reasons: dict[str, str] = {}  # why a vector did not come, by its hash

    def run(self) -> ImportReport:
        """Find the charges, claim them until nothing is left to be tried, and name what did not come."""
        hashes = [item.result_sha for item in read_recordings(self._paths)]
        charged = self._find_charges(set(hashes))
        fresh = {sha for sha, keys in self._open.items() if keys}
        self._report.known = sum(sha in charged and sha not in fresh for sha in hashes)
        is_tried = True
        while is_tried and any(self._open.values()):
            is_tried = False
            for batch in self._batches():
                self._deliver(batch)
                self._progress("import", min(self._report.items, len(hashes)), len(hashes))
                is_tried = True
        lost = dict.fromkeys({*hashes} - charged, "no charge of this account is for this vector, or it was rounded")
        lost |= {sha: why for sha, why in self._reasons.items() if self._open.get(sha)}
        if lost:
            self._report.failed += [
                FailedQuery(item.name, "not_imported", lost[item.result_sha])
                for item in read_recordings(self._paths)
                if item.result_sha in lost
            ]
        return self._report

    def _find_charges(self, wanted: set[str]) -> set[str]:
        """Note the item keys of charges for these vectors that are not here yet; return which have a charge at all."""
        charged: set[str] = set()
        for page in self._vendor.statement_pages():
            items = [item for row in page.entries if row.entry.kind == "charge" for item in row.items]
            found = {item.item_key: item.result_sha for item in items if item.result_sha in wanted}
            try:
                named = self._cache.records.named_items(map(bytes.fromhex, found))
            except ValueError as error:
                raise VendorError("the vendor's statement has an item key that is none; ask the vendor") from error
            for item_key, sha in found.items():
                charged.add(sha)
                keys = self._open.setdefault(sha, [])
                if bytes.fromhex(item_key) not in named:
                    keys.append(item_key)
        return charged

    def _batches(self) -> Iterator[list[_Claim]]:
        """Yield what each recorded item may be of and was not tried as; no key is twice in a batch."""
        batch: list[_Claim] = []
        size = 0
        most, most_bytes = self._teacher.max_items, min(_BATCH_BYTES, self._teacher.max_request_bytes // 2)
        for item in read_recordings(self._paths):
            if not self._may_be_sent(item):
                continue
            content = item.content if isinstance(item.content, bytes) else item.content.encode()
            content_name = sha256_hex(content)
            for item_key in tuple(self._open.get(item.result_sha, ())):
                if (item_key, content_name) in self._tried or any(item_key == claim.item_key for claim in batch):
                    continue
                is_full = len(batch) == min(most, _BATCH_ITEMS) or size + len(content) > most_bytes
                if batch and (is_full or batch[0].item.modality != item.modality):
                    yield batch
                    batch, size = [], 0
                self._tried.add((item_key, content_name))
                batch.append(_Claim(item_key, item))
                size += len(content)
        if batch:
            yield batch

    def _may_be_sent(self, item: RecordedItem) -> bool:
        """Return whether an item is a text or an image: no other file that a recording names leaves this machine."""
        if isinstance(item.content, bytes):
            try:
                image_size(item.content, Path(item.name))
            except DataError as error:
                self._reasons[item.result_sha] = str(error)
                return False
        return True

    def _deliver(self, batch: Sequence[_Claim]) -> None:
        """Ask for the vectors of charges, free, by content and item key; keep those that come."""
        items = {claim.item_key: claim.item for claim in batch}
        contents = [item.content for item in items.values()]
        if batch[0].item.modality == "text":
            texts = [str(content) for content in contents]
            delivery = self._vendor.embed_texts(texts, list(items), self._teacher, is_free=True)
        else:
            files = [content for content in contents if isinstance(content, bytes)]
            delivery = self._vendor.embed_images(files, list(items), self._teacher, is_free=True)
        if (keyring := self._vendor.keyring) is not None:
            self._cache.vendors.remember_keys(keyring.ledger_id, keyring.keys)
        for receipt in delivery.receipts:
            self._keep(receipt, delivery, items)
        for failed in delivery.failed:
            sha, is_another = items[failed.item_key].result_sha, failed.code == MISMATCH
            why = "the charge is for another content, or another model" if is_another else failed.detail
            self._reasons[sha] = why

    def _keep(self, receipt: Receipt, delivery: Delivery, items: dict[str, RecordedItem]) -> None:
        """Keep what one charge has paid for, under the names that a plan gives it."""
        entry, intents = receipt.entry, []
        price = PriceTag(entry.price_id or 0, entry.unit_price_micro, entry.currency)
        seller = replace(
            self._teacher,
            id=str(entry.model_id),
            weights_sha=str(entry.weights_sha),
            precision=str(entry.precision),
            preprocessing_id=str(entry.preprocessing_id),
            image_price=price,
            text_price=price,
        )
        delivered = [item for item in delivery.items if item.seq == entry.seq]
        for one in delivered:
            item = items[one.item_key]
            content_sha = self._content_of(item, seller)
            cache_key = identity_of(seller, item.modality, content_sha).cache_key()
            intents.append(Intent(one.item_key, cache_key, item.modality, content_sha, price.unit_price_micro))
            self._open[item.result_sha].remove(one.item_key)
        own = Delivery(items=tuple(delivered), receipts=(receipt,))
        self._report.twice += self._cache.purchases.adopt(seller, entry.account_id, intents, own)
        self._report.items += len(delivered)
        self._report.amount_micro += len(delivered) * price.unit_price_micro

    def _content_of(self, item: RecordedItem, seller: TeacherModel) -> str:
        if isinstance(item.content, str):
            return text_sha(item.content)
        try:
            sha, is_view = sent_content(item.content, Path(item.name), seller.image_size, seller.preprocessing_id)
        except DataError:  # what the vendor read and we do not is what no plan asks about
            sha, is_view = sha256_hex(item.content), False
        self._report.unasked += not is_view
        return sha
