"""Readiness answers also when a check does not, and bounds that nobody could pass are refused at the start."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from support.vendor.serving_shop import running_vendor
from support.vendor.vendor_in_process import open_vendor, vendor_settings
from vl2v_vendor.domain.errors import ModelUnavailable
from vl2v_vendor.settings import SettingsError
from vl2v_vendor.web.routes import public

pytestmark = pytest.mark.anyio


async def test_a_check_that_hangs_does_not_hang_readiness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(public, "_CHECK_SECONDS", 0.05)

    async def hang() -> None:
        await asyncio.Event().wait()

    async def dead() -> None:
        raise ModelUnavailable("the model process is being restarted")

    async with running_vendor(readiness={"ledger": hang, "model": dead}) as vendor:
        started = time.monotonic()
        async with vendor.client() as client:
            response = await client.get("/readyz")
        assert time.monotonic() - started < 5
        assert response.status_code == 503
        assert response.json()["checks"] == {
            "ledger": "no answer within 0.05 seconds",
            "model": "the model process is being restarted",
        }


def test_a_queue_that_holds_no_full_request_is_refused_at_the_start(tmp_path: Path, migrated_sqlite: Path) -> None:
    needed = 10 * 32 * 32 * 3
    fits = vendor_settings(tmp_path, migrated_sqlite, max_items=10, max_queued_bytes=needed)
    with open_vendor(fits):
        pass
    too_small = vendor_settings(tmp_path, migrated_sqlite, max_items=10, max_queued_bytes=needed - 1)
    with pytest.raises(SettingsError, match=f"max_queued_bytes: must be at least {needed}"), open_vendor(too_small):
        pass
