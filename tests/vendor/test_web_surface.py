"""Everything around the sale: who may ask for what, the catalogue, the bill, health, and the OpenAPI document."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator
from dataclasses import asdict

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import images, png, running_vendor
from vl2v_contract.records import PublicKeys, RequestRecord, SignedStatement, Statement, Summary
from vl2v_contract.wire.embeddings import ModelCard, ModelList
from vl2v_contract.wire.errors import Problem
from vl2v_vendor.domain.errors import ModelUnavailable
from vl2v_vendor.web.app import ROUTERS
from vl2v_vendor.web.declarations import Requires, public

pytestmark = pytest.mark.anyio

IMAGES = "/v1/embeddings/images"
PUBLIC_PATHS = {"/v1/models", "/v1/models/{model_id:path}", "/v1/billing/keys", "/healthz", "/readyz", "/metrics"}


def routes() -> list[APIRoute]:
    """Every route that the application is made of."""
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def expected_policy(path: str) -> str:
    scopes = {"embeddings": "embed", "billing": "billing", "admin": "admin"}
    return "public" if path in PUBLIC_PATHS else scopes[path.split("/")[2]]


def policies_of(route: APIRoute) -> list[str]:
    calls = [dependency.call for dependency in route.dependant.dependencies]
    policies = [call for call in calls if call is public or isinstance(call, Requires)]
    return [call.scope if isinstance(call, Requires) else "public" for call in policies]


def dependencies_of(dependant: Dependant) -> Iterator[object]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from dependencies_of(dependency)


def test_no_dependency_costs_a_thread() -> None:
    calls = {call for route in routes() for call in dependencies_of(route.dependant)}
    assert public in calls
    for call in calls:
        function = call if inspect.isfunction(call) else type(call).__call__
        assert inspect.iscoroutinefunction(function), call


async def test_every_route_declares_one_access_policy() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            served = (await client.get("/openapi.json")).json()["paths"]
        assert set(served) == {route.path.replace(":path", "") for route in routes()}
        for route in routes():
            assert policies_of(route) == [expected_policy(route.path)], route.path


@pytest.mark.parametrize("path", [IMAGES, "/v1/embeddings/texts", "/v1/embeddings/replay"])
async def test_a_sale_needs_a_good_key_with_the_scope_embed(path: str) -> None:
    async with running_vendor() as vendor:
        revoked = vendor.ledger.issue_key()
        vendor.ledger.revoke(revoked)
        expired = vendor.ledger.issue_key(expires_at=5)
        auditor = vendor.ledger.issue_key(scopes=frozenset({"billing"}))
        cases = {
            "vl2v_unknown": (401, "unauthenticated"),
            revoked: (401, "key_revoked"),
            expired: (401, "key_expired"),
            auditor: (403, "forbidden"),
        }
        for secret, (status, code) in cases.items():
            async with vendor.client(secret) as client:
                response = await client.post(path, content=b"not even read")
            found = Problem.model_validate_json(response.content)
            assert (response.status_code, found.code.value, found.retryable) == (status, code, False)
            assert secret not in response.text
            assert ("www-authenticate" in response.headers) == (status == 401)
        async with vendor.client() as client:
            for header in ("", "Basic dXNlcg==", "Bearer"):
                assert (await client.post(path, headers={"Authorization": header})).status_code == 401


async def test_the_bill_needs_the_scope_billing() -> None:
    async with running_vendor() as vendor:
        buyer = vendor.ledger.issue_key(scopes=frozenset({"embed"}))
        async with vendor.client(buyer) as client:
            for path in ("summary", "statement", "requests/req_1"):
                assert (await client.get(f"/v1/billing/{path}")).status_code == 403


async def test_the_catalogue_describes_the_model() -> None:
    async with running_vendor() as vendor:
        async with vendor.client("none") as client:
            listed = ModelList.model_validate_json((await client.get("/v1/models")).content)
            card = ModelCard.model_validate_json((await client.get("/v1/models/hash-64")).content)
            missing = await client.get("/v1/models/ViT-B-32/openai")
        assert listed.data == [card]
        assert (card.ledger_id, card.embedding_dim, card.image_size) == ("ledger_memory", 64, 32)
        assert {(price.modality, price.unit_price_micro) for price in card.prices} == {("image", 100), ("text", 10)}
        assert card.limits.max_items == 8
        assert missing.status_code == 404
        assert Problem.model_validate_json(missing.content).code == "unknown_model"


async def test_the_bill_shows_what_was_bought() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            bought = (await client.post(IMAGES, json=images(png(), keys=[item_key("a")]))).json()
            summary = TypeAdapter(Summary).validate_json((await client.get("/v1/billing/summary")).content)
            statement = TypeAdapter(Statement).validate_json((await client.get("/v1/billing/statement")).content)
            signed = (await client.get("/v1/billing/statement?signed=true")).json()
            assert "signatures" not in (await client.get("/v1/billing/statement?signed=false")).json()
            one = await client.get(f"/v1/billing/requests/{bought['request_id']}")
            record = TypeAdapter(RequestRecord).validate_json(one.content)
            keys = TypeAdapter(PublicKeys).validate_json((await client.get("/v1/billing/keys")).content)
            assert (await client.get("/v1/billing/requests/req_none")).status_code == 404
            for page in ("limit=0", "limit=1001", "after_seq=-1"):
                assert (await client.get(f"/v1/billing/statement?{page}")).status_code == 422
        assert (summary.total.units, summary.remaining_units) == (1, 99)
        assert statement.entries[0].items[0].item_key == item_key("a")
        assert signed["signatures"] == [bought["receipt"]["signature"]]
        assert TypeAdapter(SignedStatement).validate_python(signed).entries == statement.entries
        assert statement.signed_head.head.seq == summary.head_seq == 1
        assert asdict(record.receipt) == bought["receipt"]
        assert keys.ledger_id == "ledger_memory"


async def test_readiness_names_what_is_missing() -> None:
    async def dead() -> None:
        raise ModelUnavailable("the model process is being restarted")

    async def fine() -> None:
        return None

    async with running_vendor(readiness={"model": dead, "ledger": fine}) as vendor:
        async with vendor.client() as client:
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["checks"] == {"model": "the model process is being restarted", "ledger": "ok"}


async def test_metrics_count_requests_and_items() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            await client.post(IMAGES, json=images(png(), b"broken"))
            await client.get("/nowhere")
            text = (await client.get("/metrics")).text
        assert 'vl2v_requests_total{endpoint="/v1/embeddings/images",status="200"} 1.0' in text
        assert 'vl2v_requests_total{endpoint="unknown",status="404"} 1.0' in text
        assert 'vl2v_billed_units_approximate_total{modality="image"} 1.0' in text
        assert 'vl2v_items_total{modality="image",outcome="failed"} 1.0' in text
        assert 'vl2v_queue_depth{lane="image"} 0.0' in text
        assert 'vl2v_request_seconds_count{endpoint="/v1/embeddings/images"} 1.0' in text


async def test_every_answer_has_a_request_id_of_its_own_and_a_log_line_without_secrets(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="vl2v_vendor")
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            answers = [await client.get("/healthz"), await client.get("/nowhere"), await client.delete(IMAGES)]
            answers.append(await client.post(IMAGES, json=images(png())))
        assert len({response.headers["x-request-id"] for response in answers}) == 4
        assert [response.status_code for response in answers] == [200, 404, 405, 200]
        assert answers[2].headers["allow"] == "POST"
        for response in answers:
            assert response.headers["x-request-id"] in caplog.text
        assert vendor.secret not in caplog.text
        assert "key_000000000000" in str([record.__dict__.get("fields") for record in caplog.records])


async def test_a_client_that_goes_away_while_sending_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    async with running_vendor() as vendor:
        scope = {
            "type": "http",
            "method": "POST",
            "path": IMAGES,
            "raw_path": IMAGES.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "http_version": "1.1",
            "server": ("vendor", 80),
            "headers": [(b"authorization", f"Bearer {vendor.secret}".encode()), (b"content-type", b"application/json")],
        }
        sent: list[object] = []

        async def receive() -> dict[str, str]:
            return {"type": "http.disconnect"}

        async def send(message: object) -> None:
            sent.append(message)

        await vendor.app(scope, receive, send)
        assert sent == []
        async with vendor.client() as client:
            assert 'status="499"' in (await client.get("/metrics")).text
    assert not caplog.records


async def test_the_openapi_document_is_complete() -> None:
    async with running_vendor() as vendor:
        async with vendor.client() as client:
            document = (await client.get("/openapi.json")).json()
        schemas = document["components"]["schemas"]
        for reference in references(document):
            assert reference.removeprefix("#/components/schemas/") in schemas, reference
        sale = document["paths"][IMAGES]["post"]
        assert set(sale["requestBody"]["content"]) == {
            "application/json",
            "multipart/form-data",
            "application/octet-stream",
            "application/vnd.vl2v.rgb8",
        }
        assert set(sale["responses"]["200"]["content"]) == {"application/json", "application/octet-stream"}
        expected = {"200", "401", "402", "403", "404", "409", "413", "415", "422", "429", "500", "503"}
        assert set(sale["responses"]) == expected
        assert "application/problem+json" in sale["responses"]["422"]["content"]
        assert sale["security"] == [{"HTTPBearer": []}]
        assert "security" not in document["paths"]["/v1/models"]["get"]


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [found for member in node.values() for found in references(member)]
    if isinstance(node, list):
        return [found for member in node for found in references(member)]
    return []
