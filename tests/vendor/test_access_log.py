"""The access log under a flood: what bills nothing has a bounded number of lines, and what is sold always has one."""

from __future__ import annotations

import logging

import pytest

from support.vendor.serving_shop import images, png, running_vendor
from vl2v_vendor.observe.request_trace import RequestTrace
from vl2v_vendor.web import access_log
from vl2v_vendor.web.access_log import AccessLog

IMAGES = "/v1/embeddings/images"
MOST = 3


@pytest.fixture(autouse=True)
def few_lines(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(access_log, "_MOST_LINES", MOST)
    caplog.set_level(logging.INFO, "vl2v_vendor.access")


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def trace(status: int, **facts: object) -> RequestTrace:
    return RequestTrace("POST", IMAGES, {"request_id": "req_1", **facts}, status=status)


@pytest.mark.anyio
async def test_a_flood_of_wrong_keys_takes_no_customer_s_line(caplog: pytest.LogCaptureFixture) -> None:
    async with running_vendor() as vendor:
        async with vendor.client("vl2v_unknown") as stranger:
            for _ in range(2 * MOST):
                assert (await stranger.post(IMAGES, json=images(png()))).status_code == 401
        async with vendor.client() as client:
            for _ in range(2 * MOST):
                assert (await client.post(IMAGES, json=images(png()))).status_code == 200
            assert (await client.get("/nowhere")).status_code == 404
    statuses = [record.args["status"] for record in caplog.records]  # type: ignore[index, call-overload]
    assert statuses == [401] * MOST + [200] * 2 * MOST  # who asks for nothing that is there shows no key either


def test_each_account_has_lines_of_its_own_and_what_has_none_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    log = AccessLog(clock)
    for _ in range(MOST + 4):
        log.write(trace(402, account_id="acct_a"))
    log.write(trace(402, account_id="acct_b"))
    log.write(trace(200, account_id="acct_a", billed_units=1))
    log.write(trace(500, account_id="acct_a"))
    assert len(caplog.records) == MOST + 3
    clock.seconds = 60.0
    log.write(trace(401))
    assert "no line: 4 of acct_a" in caplog.messages[-2]
    clock.seconds = 120.0
    log.write(trace(401))
    assert len(caplog.records) == MOST + 6
