"""A vendor and clients for the end-to-end tests, and a small data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.vendor.live_parties import Client, Vendor, free_port
from vl2v_client.data.shapes import write_shapes


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three styles, four classes, six images each."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    write_shapes(
        root,
        seed=7,
        styles=("photo", "cartoon", "sketch"),
        images_per_class=6,
        class_names=("house", "fish", "key", "boat"),
        size=32,
    )
    return root


@pytest.fixture(scope="session")
def shared_vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """A vendor for tests that do not harm it."""
    vendor = Vendor(tmp_path_factory.mktemp("vendor") / "shared", free_port())
    vendor.start()
    yield vendor
    vendor.stop()


@pytest.fixture
def own_vendor(tmp_path: Path) -> Iterator[Callable[..., Vendor]]:
    """Makes vendors of the test's own, to kill and reconfigure."""
    made: list[Vendor] = []

    def make(**settings: str) -> Vendor:
        vendor = Vendor(tmp_path / f"vendor{len(made)}", free_port(), settings)
        vendor.start()
        made.append(vendor)
        return vendor

    yield make
    for vendor in made:
        vendor.stop()


@pytest.fixture
def new_client(tmp_path: Path) -> Callable[..., Client]:
    """Makes clients with an empty cache and an account of their own."""
    count = 0

    def make(vendor: Vendor, budget: int = 10_000) -> Client:
        nonlocal count
        count += 1
        key = vendor.create_key(f"{tmp_path.name}-{count}", budget)
        return Client(vendor, tmp_path / f"client{count}.db", key)

    return make
