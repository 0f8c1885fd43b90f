"""This version reads the caches and the ledger of version 0.1, and goes on with both.

`tests/fixtures/v0.1/README.md` says what the fixtures hold and how they were made.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from support.client.version_01 import OFFLINE, Command, Done, ServedLedger, copy_ledger


def test_the_data_set_is_drawn_as_before(client: Command, unpacked: Path, tmp_path: Path) -> None:
    styles = [word for style in ("photo", "cartoon", "sketch") for word in ("--style", style)]
    made = client("shapes", tmp_path / "shapes", "--seed", "15", "--images-per-class", "4", "--size", "32", *styles)
    assert made.code == 0, made.err
    stored = sorted((unpacked / "shapes").rglob("*.png"))
    assert len(stored) == 120
    for path in stored:  # pixels, since another zlib makes other bytes of them
        drawn = Image.open(tmp_path / "shapes" / path.relative_to(unpacked / "shapes"))
        assert np.array_equal(np.asarray(Image.open(path)), np.asarray(drawn)), path


@pytest.mark.parametrize("account", ["acme", "bob", "carol"])
def test_a_cache_is_counted_and_verified(
    account: str, client: Command, cache: Callable[[str], Path], expected: dict[str, Any]
) -> None:
    path = cache(account)
    stats = client("cache", "stats", "--json", VL2V_CACHE=path).json()
    assert {name: stats[name] for name in expected["cache_stats"][account]} == expected["cache_stats"][account]
    assert client("cache", "verify", "--json", VL2V_CACHE=path).json() == expected["cache_verify"][account]


def test_a_plan_finds_everything_in_the_cache(client: Command, cache: Callable[[str], Path], unpacked: Path) -> None:
    words = ("plan", "--data", unpacked / "shapes", "--target-domain", "sketch", "--views", "2", "--json")
    plan = client(*words, "--view-recipe", "styles", VL2V_CACHE=cache("acme"), **OFFLINE).json()
    assert (plan["new_queries"], plan["amount_micro"], plan["cached"]) == (0, 0, 138)


def test_the_ledger_verifies_and_its_books_read_as_before(
    vendor: Command, tmp_path: Path, expected: dict[str, Any]
) -> None:
    home = copy_ledger(tmp_path / "vendor")
    report = vendor("ledger", "verify", "--json", VL2V_VENDOR_DATA_DIR=home).json()
    assert set(report.pop("unsigned_before").values()) == {None}  # version 0.1 did not sign
    assert report == expected["ledger_verify"]
    for words, said in expected["books"].items():
        found = vendor(*words.split(), "--json", VL2V_VENDOR_DATA_DIR=home).json()
        assert found == said, words


def test_a_changed_ledger_does_not_verify(vendor: Command, tmp_path: Path) -> None:
    home = copy_ledger(tmp_path / "vendor")
    stored = (home / "vendor.db").read_bytes()
    assert stored.count(b"goodwill") >= 1
    (home / "vendor.db").write_bytes(stored.replace(b"goodwill", b"badwill!"))
    assert vendor("ledger", "verify", VL2V_VENDOR_DATA_DIR=home).code == 1


def test_an_old_account_is_audited_and_goes_on(
    client: Command, cache: Callable[[str], Path], served: ServedLedger, unpacked: Path, expected: dict[str, Any]
) -> None:
    path = cache("acme")
    found = served.environment("acme", path)
    before = _audit(client("audit", "--json", **found))
    assert before == expected["audit"]["acme"][0]

    words = ("buy", "--data", unpacked / "shapes", "--target-domain", "sketch", "--views", "0", "--yes", "--json")
    bought = client(*words, **found).json()  # of the vendor's model now, which the cache has never met
    assert bought["billed_units"] == 10
    after = _audit(client("audit", "--json", **found))
    assert (after["clean"], after["units"], after["matched"]) == (True, before["units"] + 10, before["matched"] + 10)
    assert after["head"]["seq"] == before["head"]["seq"] + 1


def test_what_is_paid_is_replayed_free(served: ServedLedger) -> None:
    used = served.ask("carol", "/v1/billing/summary")["used_units"]
    paid = _items(served, "carol")
    assert len(paid) == 20 - 5
    answer = served.ask("carol", "/v1/embeddings/replay", {"item_keys": list(paid), "dtype": "float16"})
    assert answer["usage"]["billed_units"] == answer["usage"]["amount_micro"] == 0
    for item in answer["data"]:
        assert item["status"] == "replayed"
        assert hashlib.sha256(base64.b64decode(item["embedding"])).hexdigest() == paid[item["item_key"]]
    assert served.ask("carol", "/v1/billing/summary")["used_units"] == used


def test_a_result_past_its_retention_is_not_replayed_and_stays_paid(served: ServedLedger) -> None:
    statement = served.ask("acme", "/v1/billing/statement")
    expired = [item["item_key"] for listed in statement["entries"][2:4] for item in listed["items"]]
    kept = [item["item_key"] for item in statement["entries"][1]["items"]]
    answer = served.ask("acme", "/v1/embeddings/replay", {"item_keys": [*expired, *kept]})
    found = {item["item_key"]: item for item in answer["data"]}
    assert [found[key]["status"] for key in kept] == ["replayed"] * 10
    assert [found[key]["error"]["code"] for key in expired] == ["result_expired"] * 8  # four are pruned, four not yet


def test_what_was_bought_in_openais_language_is_replayed(served: ServedLedger, expected: dict[str, Any]) -> None:
    paid = _items(served, "dave")
    answer = served.ask("dave", "/v1/embeddings/replay", {"item_keys": list(paid)})
    bought = [item["embedding"] for item in expected["openai"]["data"]]
    assert [item["embedding"] for item in answer["data"]] == bought


@pytest.mark.parametrize("account", ["bob", "carol"])
def test_a_lost_answer_and_a_restored_ledger_are_found_once(
    account: str, client: Command, cache: Callable[[str], Path], served: ServedLedger, expected: dict[str, Any]
) -> None:
    found = served.environment(account, cache(account))
    first = client("audit", "--json", **found)
    assert first.code == 1
    assert _audit(first) == expected["audit"][account][0]
    used = served.ask(account, "/v1/billing/summary")["used_units"]
    second = client("audit", "--json", "--recover", **found)
    assert second.code == 0
    assert _audit(second) == expected["audit"][account][1]
    assert served.ask(account, "/v1/billing/summary")["used_units"] == used
    assert client("cache", "verify", "--json", **found).json()["clean"]


def _audit(done: Done) -> dict[str, Any]:
    """An audit's totals and counts as version 0.1 had them, without its examples, whose words may change."""
    report = json.loads(done.out)
    assert report["other_software"]["items"] == 0
    assert report["differences"].pop("unsigned_entry") == report["signatures"]["not_shown"] == 0
    return {name: value for name, value in report.items() if name not in ("examples", "other_software", "signatures")}


def _items(served: ServedLedger, account: str) -> dict[str, str]:
    """The hash of each paid result, by item key."""
    statement = served.ask(account, "/v1/billing/statement")
    return {item["item_key"]: item["result_sha"] for listed in statement["entries"] for item in listed["items"]}
