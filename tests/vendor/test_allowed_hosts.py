"""A vendor that knows its hosts answers for no other, whatever is asked; monitors may come by any address."""

from __future__ import annotations

import httpx
import pytest

from support.vendor.listening_vendor import listening
from support.vendor.raw_http import exchange
from support.vendor.serving_shop import images, png, running_vendor
from vl2v_contract.wire.errors import Problem
from vl2v_vendor.settings import SettingsError, load_settings
from vl2v_vendor.web.app import create_app

pytestmark = pytest.mark.anyio

HOSTS = ("vendor.example", "127.0.0.1", "[::1]")
PATHS = ("/", "/login", "/docs", "/v1/models", "/openapi.json", "/nothing")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "vendor.example.evil", "evil@vendor.example", "::1"]
)
async def test_another_host_is_answered_nothing(host: str) -> None:
    async with running_vendor() as vendor:
        vendor.app = create_app(vendor.services, allowed_hosts=HOSTS)
        async with vendor.client() as client:
            for path in PATHS:
                answer = await client.get(path, headers={"Host": host})
                problem = Problem.model_validate_json(answer.content)
                assert (answer.status_code, "`allowed_hosts`" in problem.detail) == (400, True), path
                assert problem.request_id == answer.headers["x-request-id"]
                assert "evil" not in answer.text
            bought = await client.post("/v1/embeddings/images", json=images(png()), headers={"Host": host})
            assert (bought.status_code, vendor.ledger.used_units) == (400, 0)
            for path in ("/healthz", "/readyz", "/metrics"):
                assert (await client.get(path, headers={"Host": host})).status_code == 200


async def test_the_vendor_s_own_hosts_are_answered_at_any_port() -> None:
    async with running_vendor() as vendor:
        vendor.app = create_app(vendor.services, allowed_hosts=HOSTS)
        async with vendor.client() as client:
            for host in ("vendor.example", "Vendor.Example:443", "127.0.0.1:8000", "[::1]", "[::1]:8000"):
                assert (await client.get("/login", headers={"Host": host})).status_code == 200, host


async def test_a_refused_body_is_not_waited_for() -> None:
    async with running_vendor() as vendor:
        app = create_app(vendor.services, allowed_hosts=HOSTS)
        async with listening(app) as port:
            head = b"POST /login HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 900000\r\n\r\n"
            answer = await exchange(port, head)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer.lower()


async def test_without_the_setting_every_host_is_answered() -> None:
    async with running_vendor() as vendor, vendor.client() as client:
        answer: httpx.Response = await client.get("/v1/models", headers={"Host": "evil.example"})
    assert answer.status_code == 200


@pytest.mark.parametrize("host", ["https://vendor.example", "vendor.example:443", "*", "vendor.example/", ""])
def test_what_is_no_host_is_no_setting(host: str) -> None:
    with pytest.raises(SettingsError, match=r"allowed_hosts\.0: "):
        load_settings(allowed_hosts=(host,))
