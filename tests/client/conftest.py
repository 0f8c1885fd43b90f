"""Fixtures of the client's tests: an honest vendor, an empty cache, a client that does not wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.client.buying_bench import connect
from support.client.fake_vendor import FakeVendor
from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache


@pytest.fixture
def vendor() -> FakeVendor:
    return FakeVendor()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingCache]:
    with EmbeddingCache(tmp_path / "cache" / "client.db") as opened:
        yield opened


@pytest.fixture
def client(vendor: FakeVendor) -> Iterator[VendorClient]:
    with connect(vendor) as opened:
        yield opened
