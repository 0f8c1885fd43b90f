"""The client against a vendor that answers with anything: bounded memory, bounded time, an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.adversary.lying_door import KEYS, LIES, MODELS, SALE, STATEMENT, SUMMARY, lying_door
from support.proofs.measured_process import Ended, run_measured
from support.proofs.proof_figures import Prove
from support.vendor.live_parties import BIN, Client, Vendor, free_port
from vl2v_client.data.shapes import write_shapes

MEBIBYTE = 1024 * 1024
PLAN = ("plan", "--student", "tiny", "--target-domain", "sketch", "--views", "1")
BUY = ("buy", *PLAN[1:], "--yes")
ROADS: dict[str, tuple[tuple[str, ...], int]] = {
    MODELS: (PLAN, 64),
    KEYS: (("audit",), 64),
    SUMMARY: (("bill",), 256),
    STATEMENT: (("audit",), 1536),
    SALE: (BUY, 512),
}
"""Whose answers are lies: the command that asks, and the most mebibytes that it may take beyond an honest run.

The client reads at most 1 MiB of a card, 16 MiB of a summary, and of a statement's page and of a sale what their
entries and items can need, at most 1 GiB.
"""
SHORT = {
    (SALE, "endless body"),
    (MODELS, "endless body"),
    (MODELS, "endless head"),
    (MODELS, "dripping body"),
    (MODELS, "many values"),
    (KEYS, "deep JSON"),
    (SUMMARY, "a refusal that steers"),
    (STATEMENT, "compressed body"),
    (SALE, "cut body"),
}
MOST_SECONDS = 240.0


class Buyer:
    """A customer with a data set, and what its commands take where everybody is honest."""

    def __init__(self, vendor: Vendor, folder: Path) -> None:
        self.vendor = vendor
        self.data = folder / "data"
        write_shapes(
            self.data, seed=7, styles=("photo", "cartoon", "sketch"), images_per_class=3,
            class_names=("house", "fish"), size=32,
        )  # fmt: skip
        self.client = Client(vendor, folder / "client.db", vendor.create_key("honest", 1000))
        self.honest_bytes = {words: self.run(words, vendor.url).peak_bytes for words, _ in ROADS.values()}

    def run(self, words: tuple[str, ...], url: str) -> Ended:
        named = (words[0], "--data", str(self.data), *words[1:]) if words[0] in ("plan", "buy") else words
        environment = {**self.client.environment, "VL2V_VENDOR_URL": url}
        return run_measured([BIN / "vl2v-client", *named], environment, within_seconds=MOST_SECONDS)


@pytest.fixture(scope="module")
def buyer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buyer]:
    folder = tmp_path_factory.mktemp("buyer")
    vendor = Vendor(folder / "vendor", free_port())
    vendor.start()
    yield Buyer(vendor, folder)
    vendor.stop()


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("lie", LIES)
def test_a_lie_costs_bounded_time_and_memory_and_is_named(lie: str, buyer: Buyer, full: bool, prove: Prove) -> None:
    roads = {path: road for path, road in ROADS.items() if full or (path, lie) in SHORT}
    if not roads:
        pytest.skip("at full length alone")
    for path, (words, mebibytes) in roads.items():
        cache = buyer.client.cache
        buyer.client.cache = cache.with_name(f"{path.strip('/').replace('/', '-')}-{lie.replace(' ', '-')}.db")
        with lying_door(buyer.vendor.url, path, LIES[lie]) as url:
            ended = buyer.run(words, url)
        buyer.client.cache = cache
        _hold(prove, f"{lie} for {path}", ended, buyer.honest_bytes[words] + mebibytes * MEBIBYTE, url)


@pytest.mark.timeout(600)
def test_after_all_of_it_nothing_is_billed_twice(buyer: Buyer, prove: Prove) -> None:
    bought = buyer.client.used_units()
    for name, words in (("buy", BUY), ("audit", ("audit",))):
        code = buyer.run(words, buyer.vendor.url).code
        prove(f"an honest `{name}` afterwards, exit code", code, goal="0", met=code == 0)
    again = buyer.client.used_units() - bought
    prove("units billed again", again, goal="0", met=again == 0)


def _hold(prove: Prove, name: str, ended: Ended, most_bytes: int, url: str) -> None:
    said = " ".join(ended.err.split())
    steers = {letter for letter in ended.err + ended.out if not letter.isprintable()} - {"\n"}
    is_told = ended.code > 0 and ("vendor" in said or url in said) and "Traceback" not in said and not steers
    told = f"exit code {ended.code}, {said[-160:]!r}" if not is_told else f"exit code {ended.code}"
    prove(f"{name}: told", told, goal="an error that names the vendor", met=is_told)
    seconds = round(ended.seconds, 1)
    prove(f"{name}: seconds", seconds, goal=f"< {MOST_SECONDS:g}", met=seconds < MOST_SECONDS)
    peak, most = ended.peak_bytes // MEBIBYTE, most_bytes // MEBIBYTE
    prove(f"{name}: memory, MiB", peak, goal=f"<= {most}", met=peak <= most)
