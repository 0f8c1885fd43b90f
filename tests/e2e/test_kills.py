"""Killed at any moment, on either side: nothing is paid twice, and the end is the same."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from support.vendor.live_parties import Client, Vendor

STEPS = ("--align-steps", "20", "--distill-steps", "60", "--evaluate-every", "10", "--batch-size", "4")


def test_a_client_killed_while_buying_and_while_distilling_ends_with_the_same_table(
    own_vendor: Callable[..., Vendor], new_client: Callable[..., Client], shapes: Path, tmp_path: Path
) -> None:
    vendor = own_vendor(VL2V_VENDOR_MAX_ITEMS="8")
    undisturbed, killed = new_client(vendor), new_client(vendor)
    images = shutil.copytree(shapes, tmp_path / "images")
    data = ("--data", images, "--target-domain", "sketch", "--views", "4")
    calm = ("distill", *data, "--out", tmp_path / "calm", "--yes", *STEPS)
    stormy = ("distill", *data, "--out", tmp_path / "stormy", "--yes", *STEPS)
    finished = undisturbed.run(*calm)
    assert finished.code == 0, finished.err

    _kill_when(killed, ("buy", *data, "--yes"), lambda: killed.used_units() > 0)
    assert 0 < killed.used_units() < 164
    metrics = tmp_path / "stormy" / "methods" / "vl2v-adip" / "metrics.jsonl"
    _kill_when(killed, stormy, lambda: metrics.exists() and '"distill"' in metrics.read_text())
    assert not (tmp_path / "stormy" / "report.json").exists()
    for image in images.rglob("*.png"):  # as from a backup
        image.touch()
    again = killed.run(*stormy)

    assert again.code == 0, again.err
    assert _table(tmp_path / "stormy") == _table(tmp_path / "calm")
    assert killed.used_units() == undisturbed.used_units() == 164
    assert killed.run("audit").code == 0


def test_a_vendor_killed_while_selling_is_waited_for(
    own_vendor: Callable[..., Vendor], new_client: Callable[..., Client], shapes: Path
) -> None:
    vendor = own_vendor(VL2V_VENDOR_MAX_ITEMS="4")
    client = new_client(vendor)
    buying = client.start("buy", "--data", shapes, "--target-domain", "sketch", "--views", "8", "--yes")
    _wait_for(lambda: client.used_units() > 0)
    vendor.kill()
    vendor.start()
    buying.join(timeout=120)
    assert buying.exitcode == 0
    assert client.used_units() == 40 * 8 + 4
    audit = client.run("audit", "--json")
    assert (audit.code, json.loads(audit.out)["matched"]) == (0, 40 * 8 + 4)


def _kill_when(client: Client, words: tuple[str | Path, ...], reached: Callable[[], bool]) -> None:
    process = client.start(*words)
    _wait_for(lambda: reached() or not process.is_alive())
    assert process.is_alive(), "it ended before it could be killed"
    process.kill()
    process.join()


def _wait_for(reached: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it never came that far"
        time.sleep(0.01)


def _table(run: Path) -> object:
    report = json.loads((run / "report.json").read_text())
    return report["rows"], report["confusion"], report["purchase"]
