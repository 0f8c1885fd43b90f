"""What `make test-compose` runs: the images built from the checkout, and containers of them, removed at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.vendor.compose_stack import Stack, build_images, docker, missing_docker
from support.vendor.live_parties import Client, free_port
from vl2v_client.data.shapes import write_shapes


@pytest.fixture(scope="session")
def images(request: pytest.FixtureRequest) -> None:
    """Build the images, as the documents say."""
    if not request.config.getoption("--compose"):
        pytest.skip("`make test-compose` runs containers")
    missing = missing_docker()
    assert missing is None, missing
    seconds = build_images()
    size = int(docker("image", "inspect", "--format", "{{.Size}}", "vl2v-vendor:0.2.0"))
    told = f"built in {seconds:.0f} s, or found built; the vendor's image has {size / 1e9:.2f} GB"
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        sys.stderr.write(f"\n{told}\n")


@pytest.fixture(scope="module", params=["one vendor", "three vendors"])
def stack(request: pytest.FixtureRequest, images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running project; each test leaves it running. `of digests`: without a model, for tests of the ledger alone."""
    is_replicated = request.param.startswith("three vendors")
    made = Stack(tmp_path_factory.mktemp("shop"), f"vl2v-test-{os.getpid()}", free_port(), is_replicated=is_replicated)
    made.settings = {"POSTGRES_PASSWORD": "first", "VL2V_VENDOR_MAX_ITEMS": "8"}
    if request.param.endswith("of digests"):
        made.settings["VL2V_VENDOR_ENCODER"] = "hash"
    made.lay_out()
    try:
        made.up()
        yield made
    finally:
        made.remove()


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three styles, four classes, ten images each."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    names = ("house", "fish", "key", "boat")
    write_shapes(root, seed=7, styles=("photo", "cartoon", "sketch"), images_per_class=10, class_names=names, size=64)
    return root


@pytest.fixture
def new_client(stack: Stack, tmp_path: Path) -> Callable[..., Client]:
    """Makes clients on the host, with an empty cache and an account of their own."""
    made: list[Client] = []

    def make(budget: int = 10_000) -> Client:
        key = stack.create_key(f"{tmp_path.name}-{len(made)}", budget)
        made.append(Client(stack, tmp_path / f"client{len(made)}.db", key))  # type: ignore[arg-type]
        return made[-1]

    return make
