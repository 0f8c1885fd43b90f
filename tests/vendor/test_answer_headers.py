"""Every answer says what browsers and caches may not do with it, and repeats little of a long request."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from support.vendor.listening_vendor import listening
from support.vendor.raw_http import GET, PlainApp, exchange
from support.vendor.serving_shop import images, png, running_vendor
from vl2v_contract.wire.errors import Problem
from vl2v_vendor.web.connections import ConnectionLimits

pytestmark = pytest.mark.anyio

IMAGES = "/v1/embeddings/images"
EXPECTED = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def check_headers(response: httpx.Response, status: int) -> None:
    assert response.status_code == status
    assert {name: response.headers.get_list(name) for name in EXPECTED} == {
        name: [value] for name, value in EXPECTED.items()
    }


def parse(answer: bytes) -> httpx.Response:
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    sent = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return httpx.Response(int(status.split()[1]), headers=sent, content=body)


async def test_every_answer_has_the_headers_for_browsers_and_caches() -> None:
    async with (
        running_vendor(limit_units=0) as vendor,
        listening(vendor.app) as port,
        httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {vendor.secret}"}
        ) as client,
    ):
        for path in ("/healthz", "/metrics", "/docs", "/v1/models", "/openapi.json"):
            check_headers(await client.get(path), 200)
        check_headers(await client.get("/nothing"), 404)
        check_headers(await client.get(IMAGES), 405)
        check_headers(await client.post(IMAGES, json=images(png())), 402)
        check_headers(await client.post(IMAGES, json=images(png()), headers={"Authorization": "Bearer x"}), 401)
        check_headers(await client.post("/v1/embeddings", json={"input": "a", "model": "other"}), 404)


async def test_a_failure_of_the_vendor_has_them_too(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor() as vendor:
        monkeypatch.delattr(type(vendor.services.seller), "sell")
        async with vendor.client() as client:
            check_headers(await client.post(IMAGES, json=images(png())), 500)


async def test_what_is_not_http_is_answered_by_a_problem_with_them() -> None:
    async with running_vendor() as vendor, listening(vendor.app) as port:
        answer = parse(await exchange(port, b"this is not HTTP\r\n\r\n"))
    check_headers(answer, 400)
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/problem+json"
    assert Problem.model_validate_json(answer.content).code == "invalid_request"


async def test_a_connection_without_room_is_refused_with_them() -> None:
    app = PlainApp()
    app.gate.clear()
    async with listening(app, ConnectionLimits(1)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET + b"\r\n")
        while not app.paths:
            await asyncio.sleep(0.01)
        check_headers(parse(await exchange(port, b"")), 503)
        writer.close()
        app.gate.set()


@pytest.mark.parametrize("letter", ["a", "é"])
async def test_an_answer_repeats_little_of_a_long_request(letter: str) -> None:
    long = letter * 100_000
    async with running_vendor() as vendor, vendor.client() as client:
        answers = [
            await client.post(IMAGES, json=images(png(), model=long)),
            await client.post("/v1/embeddings", json={"input": "a", "model": long}),
            await client.get(f"/{'a' * 10_000}"),
            await client.get(f"/v1/models/{long[:10_000]}"),
        ]
    for answer in answers:
        assert answer.status_code == 404
        assert len(answer.content) < 4_000
        assert len(answer.json().get("detail") or answer.json()["error"]["message"]) <= 500
