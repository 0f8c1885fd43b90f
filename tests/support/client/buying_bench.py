"""Builders for the tests of the buying half: pictures, queries, clients that do not wait."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from support.client.fake_vendor import API_KEY, FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.api.retries import RetryPolicy
from vl2v_client.buying import purchase
from vl2v_client.buying.buyer import PurchaseReport
from vl2v_client.buying.context import Notify, PurchaseContext, meet
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import Sample, TeacherModel
from vl2v_client.data import folder as dataset_folder
from vl2v_client.data.views import View
from vl2v_client.planning.queries import ImageQuery, TextQuery
from vl2v_client.planning.query_plan import Limits, QueryPlan, make_plan


def connect(
    vendor: FakeVendor, *, transport: httpx.BaseTransport | None = None, policy: RetryPolicy | None = None
) -> VendorClient:
    """A client in the same process whose waits take no time."""
    return VendorClient(
        "http://fake",
        API_KEY,
        transport=transport or vendor.transport,
        policy=policy,
        sleep=lambda _seconds: None,
        rng=random.Random(0),
    )


def draw_pictures(folder: Path, count: int) -> list[Sample]:
    """`count` different 12x10 PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        path = folder / f"{index:05d}.png"
        Image.fromarray(pixels).save(path)
        samples.append(Sample(path, "photo", index % 2))
    return samples


def count_listings(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each class folder is listed from now on."""
    counts, whole = Counter[str](), dataset_folder.list_images

    def counted(folder: Path) -> list[str]:
        counts[str(folder.absolute())] += 1
        return whole(folder)

    monkeypatch.setattr(dataset_folder, "list_images", counted)
    return counts


def draw_domains(root: Path, each: int) -> Path:
    """Three domains of two classes, `each` 12x10 PNG files of every one, of which no two are alike; returns `root`."""
    rng = np.random.default_rng(0)
    for domain in ("art", "photo", "sketch"):
        for name in ("cat", "dog"):
            (root / domain / name).mkdir(parents=True)
            for index in range(each):
                pixels = rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / domain / name / f"{index}.png")
    return root


def ask(samples: Sequence[Sample], views: int = 1) -> list[ImageQuery]:
    """The canonical view, then crops, of each sample."""
    looks = [View(), *(View(crop=(i, 0, 8, 8)) for i in range(views - 1))]
    return [ImageQuery(sample, view) for sample in samples for view in looks]


def meet_vendor(
    client: VendorClient, cache: EmbeddingCache, *, notify: Notify = lambda _sentence: None
) -> TeacherModel:
    """The model that the vendor sells now."""
    return meet(PurchaseContext(client, cache, approve=lambda _plan: None, notify=notify))


def plan_for(
    vendor: FakeVendor, cache: EmbeddingCache, images: Sequence[ImageQuery], texts: Sequence[str] = ()
) -> QueryPlan:
    """A plan of what the vendor sells now."""
    with connect(vendor) as client:
        teacher = meet_vendor(client, cache)
    return make_plan(images, [TextQuery(text) for text in texts], teacher, cache)


def buy(
    plan: QueryPlan,
    client: VendorClient,
    cache: EmbeddingCache,
    *,
    caps: Limits | None = None,
    progress: Progress = silent,
    notify: Notify = lambda _sentence: None,
    **terms: Any,
) -> PurchaseReport:
    """Buy a plan unasked, on some terms of `PurchaseContext`."""
    terms["caps"] = caps or Limits()
    context = PurchaseContext(client, cache, approve=lambda _plan: None, notify=notify, **terms)
    return purchase.buy(plan, context, progress=progress)
