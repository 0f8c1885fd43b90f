"""A vendor's embeddings as arrays, bought once, with the receipts in the same cache and books as the command line's."""

import os
import weakref
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vl2v.account import Bill
from vl2v.approval import Approval, gate, notify
from vl2v.inputs import ImageInput, image_queries
from vl2v.messages import keyword_names
from vl2v.progress_display import progress_display
from vl2v_client.api.client import VendorClient
from vl2v_client.audit.audit_report import AuditReport
from vl2v_client.audit.bill import audit_bill
from vl2v_client.buying.answers import Answers, ask
from vl2v_client.buying.context import meet, purchase_context
from vl2v_client.cache.store import EmbeddingCache, default_cache_path
from vl2v_client.config.names import config_of
from vl2v_client.core.errors import UsageError
from vl2v_client.core.progress import Progress
from vl2v_client.planning.queries import ImageQuery, PictureQuery, TextQuery
from vl2v_client.planning.query_plan import QueryPlan, make_plan


class Client:
    """A vendor, and the cache of all that was bought there. Making one sends nothing.

    What the cache holds is never bought again, whoever bought it: this object, an earlier one, or `vl2v-client`.
    Nothing is spent unless `approve` agrees to it or a cap holds it.

    Args:
        url: Address of the vendor; `$VL2V_VENDOR_URL` if left out, else `http://127.0.0.1:8000`.
        key: API key; `$VL2V_API_KEY` if left out.
        model: Model of the vendor; its default if left out.
        cache: Cache file; `$VL2V_CACHE` if left out, else `$XDG_DATA_HOME/vl2v/client.db`.
        approve: Gets each plan before anything is spent and says whether to buy it, such as `vl2v.ask`.
        max_queries: New queries that `embed_images` and `embed_texts` may buy in all; without `approve`, nobody is
            asked. `vl2v.distill` has caps of its own.
        max_cost: Money that they may spend in all, in the vendor's currency, likewise.
        progress: Whether to show how far a call is, or what to call instead.

    Attributes:
        vendor: The vendor over HTTP.
        cache: Vectors, receipts and memos.

    Raises:
        UsageError: The address cannot be one, or a cap is out of range.
        NotAuthorized: The key cannot be a key.
        CacheError: The cache cannot be used.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        model: str | None = None,
        cache: str | os.PathLike[str] | None = None,
        approve: Approval | None = None,
        max_queries: int | None = None,
        max_cost: float | Decimal | None = None,
        progress: Progress | bool = True,
    ) -> None:
        named = {"model": model, "max_queries": max_queries, "max_cost": max_cost}
        with keyword_names():
            terms = config_of({name: value for name, value in named.items() if value is not None}).purchase
            address = url or os.environ.get("VL2V_VENDOR_URL") or terms.vendor_url
            self.vendor = VendorClient(address, key or os.environ.get("VL2V_API_KEY"))
            place = cache or os.environ.get("VL2V_CACHE") or default_cache_path(os.environ)
            self.cache = EmbeddingCache(Path(place))
        self._finalizer = weakref.finalize(self, _close, self.vendor, self.cache)
        if self.vendor.exposes_key:
            notify(f"warning: the API key travels unencrypted to {self.vendor.url}: use the vendor's https:// address")
        self.model, self.approve, self.progress = model, approve, progress
        self._context = purchase_context(terms, self.vendor, self.cache, gate(approve, terms), notify)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Close connections and cache; what is forgotten is closed too."""
        self._finalizer()

    def embed_images(self, images: Iterable[ImageInput]) -> NDArray[np.float32]:
        """Return the embeddings of `N` images, `[N, D]` float32, of unit norm to float16 precision.

        Each is asked about whole, squashed to the model's square input. Equal pixels are bought once. Files are read as
        they are needed; a picture in memory must stay as it is until this returns.

        Raises:
            NotApproved: Nobody has agreed to the purchase; it has `units`, `amount_micro` and `currency`.
            BudgetExhausted: A cap or the vendor's budget cannot hold it; it has `units` and `left`.
            DataError: An image cannot be read; `QueriesFailed`, if the vendor could not: it has `failed`.
            VendorChanged: Model, price or signing key is not the one agreed to.
            VendorUnavailable: The vendor does not answer; the same call goes on where it stopped.
        """
        return self._ask(image_queries(images), []).images

    def embed_texts(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Return the embeddings of `N` texts, `[N, D]` float32, of unit norm to float16 precision.

        Raises:
            ClientError: As `embed_images`.
        """
        return self._ask([], _text_queries(texts)).texts

    def plan_images(self, images: Iterable[ImageInput]) -> QueryPlan:
        """Return what `embed_images` would buy, and for how much. Costs nothing.

        Raises:
            DataError: An image cannot be read.
            VendorError: The vendor refuses, or was never met and cannot be reached.
        """
        return self._plan(image_queries(images), [])

    def plan_texts(self, texts: Iterable[str]) -> QueryPlan:
        """Return what `embed_texts` would buy, and for how much. Costs nothing.

        Raises:
            VendorError: The vendor refuses, or was never met and cannot be reached.
        """
        return self._plan([], _text_queries(texts))

    def bill(self) -> Bill:
        """Return the account's totals, as the vendor tells them.

        Raises:
            NotAuthorized: There is no key, or it may not read the bill.
        """
        with keyword_names():
            return Bill(self.vendor.summary())

    def audit(self, *, recover: bool = False, only_ours: bool = False, accept_others: bool = False) -> AuditReport:
        """Verify every entry of the vendor's ledger, and compare it with this cache's own books, item by item.

        Args:
            recover: Fetch paid answers that never arrived, free.
            only_ours: Nothing else buys with this key: call what other software bought a difference.
            accept_others: What other software has bought so far is the account's own: later audits name the new.

        Raises:
            VendorError: The statement cannot be had, so that nothing could be verified.
        """
        with keyword_names():
            progress = progress_display(self.progress)
            options = {"recover": recover, "only_ours": only_ours, "accept_others": accept_others}
            return audit_bill(self.vendor, self.cache, **options, progress=progress)

    def _ask(self, images: list[ImageQuery | PictureQuery], texts: list[TextQuery]) -> Answers:
        with keyword_names():
            progress = progress_display(self.progress)
            return ask(images, texts, meet(self._context), self._context, progress=progress)

    def _plan(self, images: list[ImageQuery | PictureQuery], texts: list[TextQuery]) -> QueryPlan:
        with keyword_names():
            progress = progress_display(self.progress)
            return make_plan(images, texts, meet(self._context), self.cache, progress=progress)


def _close(vendor: VendorClient, cache: EmbeddingCache) -> None:
    vendor.close()
    cache.close()


def _text_queries(texts: Iterable[str]) -> list[TextQuery]:
    if isinstance(texts, str):
        raise UsageError("give a list of texts, also for one")
    given = list(texts)
    for place, text in enumerate(given):
        if not isinstance(text, str):
            raise UsageError(f"text {place} is a {type(text).__name__}: give a str")
    return [TextQuery(text) for text in given]
