"""What /metrics counts, and the times that each answer's header tells."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import Vendor, images, png, running_vendor
from vl2v_vendor.domain.encoder import VectorBatch
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.observe.request_trace import STAGES
from vl2v_vendor.settings import SettingsError, load_settings
from vl2v_vendor.web.app import create_app

pytestmark = pytest.mark.anyio

IMAGES = "/v1/embeddings/images"
REPLAY = "/v1/embeddings/replay"
SLOW = 0.25


@dataclass(frozen=True, slots=True)
class SlowEncoder(HashEncoder):
    """Takes its time for each batch of images."""

    async def encode_images(self, images: Sequence[NDArray[np.uint8]]) -> VectorBatch:
        await asyncio.sleep(SLOW)
        return await HashEncoder.encode_images(self, images)


async def scrape(client: httpx.AsyncClient) -> dict[str, float]:
    """Every series by its name and labels, as the text format has them."""
    await asyncio.sleep(0)  # a batch is counted right after its waiters were answered
    text = (await client.get("/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^([^# ]\S*(?: .*})?) (\S+)$", text, re.MULTILINE)}


def timing(answer: httpx.Response) -> dict[str, float]:
    """Seconds by stage, from `Server-Timing`."""
    parts = re.findall(r"(\w+);dur=([\d.]+)", answer.headers["server-timing"])
    return {name: float(milliseconds) / 1000 for name, milliseconds in parts}


def slow_down(vendor: Vendor) -> None:
    """Let the charge take as long as the slow encoder."""
    charge = vendor.ledger.charge

    async def slowly(order: Any) -> Any:
        await asyncio.sleep(SLOW)
        return await charge(order)

    vendor.ledger.charge = slowly  # type: ignore[method-assign]


async def test_the_stages_of_an_answer_sum_up_to_its_time() -> None:
    async with running_vendor(encoder=SlowEncoder()) as vendor:
        slow_down(vendor)
        async with vendor.client() as client:
            answer = await client.post(IMAGES, json=images(png("red"), png("blue")))
            series = await scrape(client)
        stages = timing(answer)
        total = stages.pop("total")
        assert list(stages) == list(STAGES)
        assert total == pytest.approx(sum(stages.values()), rel=0.05)
        assert SLOW <= stages["forward"] < 1.5 * SLOW
        assert SLOW <= stages["commit"] < 1.5 * SLOW
        for stage, seconds in stages.items():
            labels = f'endpoint="{IMAGES}",stage="{stage}"'
            assert series[f"vl2v_stage_seconds_count{{{labels}}}"] == 1
            assert series[f"vl2v_stage_seconds_sum{{{labels}}}"] == pytest.approx(seconds, abs=1e-4)


async def test_waiting_for_another_requests_batch_is_queueing() -> None:
    async with running_vendor(encoder=SlowEncoder()) as vendor:
        async with vendor.client() as client:
            first = asyncio.create_task(client.post(IMAGES, json=images(png("red"))))
            await asyncio.sleep(SLOW / 2)
            second = timing(await client.post(IMAGES, json=images(png("blue"))))
            await first
        assert 0.3 * SLOW <= second["queue"] < SLOW
        assert second["forward"] >= SLOW
        total = second.pop("total")
        assert total == pytest.approx(sum(second.values()), rel=0.05)


async def test_refused_and_replayed_requests_are_timed_too_and_others_only_as_far_as_they_went() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            await client.post(IMAGES, json=images(png(), keys=[item_key("a")]))
            replayed = await client.post(REPLAY, json={"item_keys": [item_key("a")]})
            refused = await client.post(IMAGES, json=images(b"broken"))
            probe = await client.get("/healthz")
        assert {"parse", "commit", "encode", "total"} == set(timing(replayed))
        assert refused.status_code == 422
        assert {"parse", "decode", "commit", "total"} <= set(timing(refused))
        assert "server-timing" not in probe.headers


async def test_refusals_are_counted_by_their_cause() -> None:
    async with running_vendor(limit_units=2) as vendor:
        async with vendor.client("vl2v_wrong") as client:
            await client.post(IMAGES, json=images(png()))
            await client.post(IMAGES, json=images(png()))
        async with vendor.client() as client:
            await client.post(IMAGES, json=images(png()), headers={"Content-Type": "text/plain"})
            await client.post(IMAGES, json=images(*[png()] * 3))
            series = await scrape(client)
        counted = {name: value for name, value in series.items() if name.startswith("vl2v_refusals_total")}
        assert counted == {
            f'vl2v_refusals_total{{code="unauthenticated",endpoint="{IMAGES}",status="401"}}': 2,
            f'vl2v_refusals_total{{code="unsupported_media_type",endpoint="{IMAGES}",status="415"}}': 1,
            f'vl2v_refusals_total{{code="budget_exhausted",endpoint="{IMAGES}",status="402"}}': 1,
        }


async def test_batches_are_counted_by_lane_and_size() -> None:
    async with running_vendor(encoder=SlowEncoder()) as vendor:
        async with vendor.client() as client:
            await client.post(IMAGES, json=images(*(png((shade, 0, 0)) for shade in range(6))))
            series = await scrape(client)
        assert series['vl2v_batch_items_sum{lane="image"}'] == 6
        assert series['vl2v_batch_items_count{lane="image"}'] == series['vl2v_batch_seconds_count{lane="image"}'] == 2
        assert series['vl2v_batch_items_bucket{lane="image",le="4.0"}'] == 2
        assert series['vl2v_batch_seconds_sum{lane="image"}'] >= 2 * SLOW


async def test_what_waits_and_what_is_in_flight_is_shown_while_it_lasts() -> None:
    async with running_vendor(encoder=SlowEncoder()) as vendor:
        async with vendor.client() as client:
            sale = asyncio.create_task(client.post(IMAGES, json=images(*(png((shade, 0, 0)) for shade in range(6)))))
            await asyncio.sleep(SLOW / 2)
            during = await scrape(client)
            await sale
            after = await scrape(client)
        pixels = 3 * vendor.services.encoder.info.image_size**2
        assert (during['vl2v_queue_depth{lane="image"}'], during['vl2v_queue_bytes{lane="image"}']) == (2, 2 * pixels)
        assert (after['vl2v_queue_depth{lane="image"}'], after['vl2v_queue_bytes{lane="image"}']) == (0, 0)
        assert (during["vl2v_requests_in_flight"], after["vl2v_requests_in_flight"]) == (2, 1)


async def test_program_model_and_process_are_described() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            series = await scrape(client)
        model = vendor.services.encoder.info
        assert series['vl2v_build_info{version="0"}'] == 1
        [described] = [name for name in series if name.startswith("vl2v_model_info")]
        for value in (model.id, model.precision, model.device, model.preprocessing_id, model.weights_sha):
            assert f'"{value}"' in described
        assert (series["vl2v_model_ready"], series["vl2v_model_restarts_total"]) == (1, 0)
        assert series["process_resident_memory_bytes"] > 1e6


@dataclass(frozen=True, slots=True)
class DeadEncoder(HashEncoder):
    """Was replaced three times and is gone again."""

    @property
    def ready(self) -> bool:
        return False

    @property
    def restarts(self) -> int:
        return 3


async def test_a_dead_model_and_its_restarts_are_shown() -> None:
    async with running_vendor(encoder=DeadEncoder()) as vendor:
        async with vendor.client() as client:
            series = await scrape(client)
        assert (series["vl2v_model_ready"], series["vl2v_model_restarts_total"]) == (0, 3)


async def test_metrics_are_shown_to_whoever_bears_the_token_of_the_settings() -> None:
    async with running_vendor() as vendor:
        vendor.app = create_app(vendor.services, metrics_token="t" * 16)
        for bearer, status in (("t" * 16, 200), ("t" * 15, 401), (vendor.secret, 401), ("é", 401)):
            async with vendor.client() as client:
                answer = await client.get("/metrics", headers={"Authorization": f"Bearer {bearer}".encode()})
            assert answer.status_code == status, bearer
            assert ("vl2v_" in answer.text, "`metrics_token`" in answer.text) == (status == 200, status == 401)
            assert "t" * 15 not in answer.text
    assert "tttt" not in repr(load_settings(metrics_token="t" * 16))
    with pytest.raises(SettingsError, match="metrics_token: "):
        load_settings(metrics_token="short")
