"""From a backup beside a selling server, through a restore that loses sales, to a server that sells on honestly."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import TypeAdapter

from support.ledger.ledger_shop import item_key
from support.vendor.live_parties import Vendor, free_port
from support.vendor.serving_shop import images, png
from vl2v_contract.chain import RESTORE_MARGIN, follows
from vl2v_contract.records import Statement


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Vendor]:
    (tmp_path / "vendor").mkdir()
    vendor = Vendor(tmp_path / "vendor", free_port())
    yield vendor
    vendor.stop()


def buy(vendor: Vendor, secret: str, colour: str) -> Any:
    response = httpx.post(
        f"{vendor.url}/v1/embeddings/images",
        json=images(png(colour), keys=[item_key(colour)]),
        headers={"Authorization": f"Bearer {secret}"},
    )
    assert response.status_code == 200, response.text
    return response.json()["receipt"]["entry"]


def statement(vendor: Vendor, secret: str) -> Statement:
    response = httpx.get(f"{vendor.url}/v1/billing/statement", headers={"Authorization": f"Bearer {secret}"})
    return TypeAdapter(Statement).validate_json(response.content)


def test_no_number_is_given_out_twice_after_a_restore(vendor: Vendor, tmp_path: Path) -> None:
    copy = str(tmp_path / "monday.db")
    vendor.start()
    secret = vendor.create_key("acme", 10)
    assert buy(vendor, secret, "red")["seq"] == 2
    made = vendor.command("ledger", "backup", copy, "--json")
    assert made.code == 0, made.err
    [(account_id, head)] = json.loads(made.out)["heads"].items()
    assert head["seq"] == 2
    lost_seq = [buy(vendor, secret, colour)["seq"] for colour in ("green", "blue")][-1]

    refused = vendor.command("ledger", "restore", copy)
    assert (refused.code, "already serves this database" in refused.err) == (1, True)
    vendor.stop()
    restored = vendor.command("ledger", "restore", copy, "--json")
    assert json.loads(restored.out)["behind_account_ids"] == [account_id]

    for act in (
        ("topup", "acme", "5"),
        ("refund", "acme", "2", "1", "--note", "x"),
        ("create", "new", "--budget", "1"),
    ):
        refused = vendor.command("accounts", *act)
        assert (refused.code, "acknowledge-restore" in refused.err) == (1, True)
    refused = vendor.command("serve", "--port", "0")
    assert refused.code == 1
    assert f"entry {lost_seq} of account {account_id}" in refused.err
    assert "ledger acknowledge-restore" in refused.err
    assert "published_entry_lost" in vendor.command("ledger", "verify").out
    acknowledged = vendor.command("ledger", "acknowledge-restore", "--note", "disk failed")
    assert (acknowledged.code, account_id in acknowledged.out) == (0, True), acknowledged.err
    assert "nothing to acknowledge" in vendor.command("ledger", "acknowledge-restore").out

    vendor.start()
    assert buy(vendor, secret, "green")["seq"] == lost_seq + 2 + RESTORE_MARGIN
    entries = [stored.entry for stored in statement(vendor, secret).entries]
    assert [entry.kind for entry in entries] == ["topup", "charge", "restored", "charge"]
    assert all(follows(before.seq, entry) for before, entry in pairwise(entries))
    vendor.kill()  # the note of what was signed may lag, and the next start must not mind
    vendor.start()
    vendor.stop()
    assert vendor.command("ledger", "verify").code == 0
