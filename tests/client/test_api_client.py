"""Talking to the vendor: same keys on every attempt, errors that say what to do, and nothing taken on trust."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from support.client.fake_vendor import FakeVendor
from vl2v_client.api import connection
from vl2v_client.api.client import VendorClient
from vl2v_client.api.retries import RetryPolicy
from vl2v_client.core.errors import (
    BudgetExhausted,
    NotAuthorized,
    UsageError,
    VendorChanged,
    VendorError,
    VendorUnavailable,
)

KEYS = ["a" * 64, "b" * 64]
TEXTS = ["a cat", "a dog"]


def buy_texts(client: VendorClient, texts: list[str] = TEXTS, keys: list[str] = KEYS) -> Any:
    return client.embed_texts(texts, keys, client.model())


def answers(
    *responses: httpx.Response | type[httpx.TransportError],
) -> Callable[[httpx.Request], httpx.Response | None]:
    """The vendor's next POSTs are answered with these; then it is itself again."""
    queue = list(responses)

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method != "POST" or not queue:
            return None
        answer = queue.pop(0)
        if isinstance(answer, httpx.Response):
            return answer
        raise answer("broken", request=request)

    return before


# Retries


def test_every_attempt_carries_the_same_item_keys(vendor: FakeVendor, client: VendorClient) -> None:
    sent: list[list[str]] = []
    fail = answers(httpx.ReadError, httpx.Response(503, headers={"Retry-After": "3"}), httpx.ReadTimeout)

    def before(request: httpx.Request) -> httpx.Response | None:
        if request.method == "POST":
            sent.append([item["item_key"] for item in json.loads(request.content)["items"]])
        return fail(request)

    vendor.before = before
    delivery = buy_texts(client)
    assert sent == [KEYS] * 4
    assert [item.status for item in delivery.items] == ["billed"] * 2


def test_a_retry_after_pauses_the_whole_client(vendor: FakeVendor) -> None:
    waits: list[float] = []
    vendor.before = answers(httpx.Response(429, headers={"Retry-After": "40"}))
    with VendorClient("http://fake", "vl2v_fake-key", transport=vendor.transport, sleep=waits.append) as client:
        buy_texts(client)
    assert waits[0] == 40.0
    assert 39.0 < waits[1] <= 40.0  # the gate, as another thread would meet it


def test_a_vendor_that_restarts_is_waited_for_and_the_user_told_once(vendor: FakeVendor) -> None:
    waits: list[float] = []
    told: list[str] = []
    with VendorClient("http://fake", "vl2v_fake-key", transport=vendor.transport, sleep=waits.append) as client:
        client.on_away = told.append
        for _ in range(2):
            vendor.before = answers(httpx.ReadError, *[httpx.ConnectError] * 4, *[httpx.RemoteProtocolError] * 4)
            buy_texts(client)
    assert sum(waits) >= 2 * 0.75 * 47.5  # 0.5 + 1 + 2 + 4 + 5 x 8 seconds, less up to a quarter of jitter
    assert len(told) == 2
    assert "trying again for up to 5 minutes" in told[0]
    assert vendor.billed_units == 2


def test_a_vendor_that_stays_away_is_given_up_after_five_minutes(vendor: FakeVendor) -> None:
    waits: list[float] = []
    with VendorClient("http://fake", "vl2v_fake-key", transport=vendor.transport, sleep=waits.append) as client:
        client.model()
        vendor.before = answers(*[httpx.ConnectError] * 99)
        with pytest.raises(VendorUnavailable, match="is it running"):
            buy_texts(client)
    assert 300 <= sum(waits) < 310


def loading(vendor: FakeVendor, retry_after: str = "2") -> httpx.Response:
    answer = vendor.problem(503, "model_unavailable", "the model is being loaded; nothing was billed")
    answer.headers.update({"Retry-After": retry_after, "X-Model-Loading": "true"})
    return answer


def test_a_vendor_that_loads_its_model_for_a_minute_is_waited_for(vendor: FakeVendor) -> None:
    waits: list[float] = []
    told: list[str] = []
    with VendorClient("http://fake", "vl2v_fake-key", transport=vendor.transport, sleep=waits.append) as client:
        client.on_away = told.append
        vendor.before = answers(*[loading(vendor) for _ in range(30)])
        delivery = buy_texts(client)
    assert [item.status for item in delivery.items] == ["billed"] * 2
    assert waits.count(2.0) == 30
    assert len(told) == 1
    assert vendor.billed_units == 2


@pytest.mark.parametrize(("asked", "attempts"), [("2", 150), ("0", 600)])
def test_a_vendor_that_goes_on_loading_is_given_up_after_five_minutes(
    vendor: FakeVendor, monkeypatch: pytest.MonkeyPatch, asked: str, attempts: int
) -> None:
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: sum(waits), time=time.time)  # the attempts themselves take no time
    monkeypatch.setattr(connection, "time", clock)
    with VendorClient("http://fake", "vl2v_fake-key", transport=vendor.transport, sleep=waits.append) as client:
        vendor.before = answers(*[loading(vendor, asked) for _ in range(999)])
        with pytest.raises(VendorUnavailable, match="the model is being loaded"):
            buy_texts(client)
    assert waits == [300 / attempts] * attempts


def test_a_timeout_is_tried_three_times_at_most(vendor: FakeVendor, client: VendorClient) -> None:
    vendor.before = answers(*[httpx.ReadTimeout] * 9)
    with pytest.raises(VendorUnavailable, match="did not answer in time"):
        buy_texts(client)
    assert vendor.seen.count("POST /v1/embeddings/texts") == 3


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (402, "budget_exhausted", BudgetExhausted, "top-up"),
        (401, "unauthenticated", NotAuthorized, "VL2V_API_KEY"),
        (403, "forbidden", NotAuthorized, "give the API key"),
        (409, "price_changed", VendorChanged, "plan again"),
        (422, "too_many_items", VendorError, "refused the request: because"),
    ],
)
def test_a_final_refusal_takes_one_request_and_says_what_to_do(
    vendor: FakeVendor, client: VendorClient, status: int, code: str, kind: type[VendorError], says: str
) -> None:
    vendor.before = answers(vendor.problem(status, code, "because"))
    with pytest.raises(kind, match=says) as caught:
        buy_texts(client)
    assert (caught.value.code, "req_refused" in str(caught.value)) == (code, True)
    assert vendor.seen.count("POST /v1/embeddings/texts") == 1


def test_cancel_ends_waiting_requests(vendor: FakeVendor, client: VendorClient) -> None:
    client.cancel()
    with pytest.raises(VendorUnavailable, match="interrupted"):
        client.summary()
    assert vendor.seen == []


# Who is at the other end


def test_nobody_at_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with (
        VendorClient(url, None, policy=RetryPolicy(max_attempts=1)) as client,
        pytest.raises(VendorUnavailable, match=rf"no vendor answers at {url}.*is it running"),
    ):
        client.model()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(404, text="<html>"),
        httpx.Response(200, text="<html>hello"),
        httpx.Response(200, json={"data": [{"id": "x"}]}),
        httpx.Response(301, headers={"Location": "https://elsewhere"}),
    ],
)
def test_somebody_else_at_the_address(answer: httpx.Response) -> None:
    transport = httpx.MockTransport(lambda _request: answer)
    with (
        VendorClient("http://fake", None, transport=transport) as client,
        pytest.raises(VendorError, match=r"not a VL2V vendor.*purchase.vendor_url"),
    ):
        client.model()


@pytest.mark.parametrize("url", ["", "localhost:8000", "ftp://host", "http://", "file:///etc", "http://host:port"])
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(UsageError, match="must look like"):
        VendorClient(url, None)


@pytest.mark.parametrize("key", ["", "sk-123", "vl2v_a b", "vl2v_a\nb", "vl2v_\u00e9"])
def test_a_key_that_is_none_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(NotAuthorized) as caught:
        VendorClient("http://fake", key)
    assert len(key) < 3 or key not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "key", "exposed"),
    [
        ("http://vendor.example", "vl2v_k", True),
        ("http://10.0.0.7:8000", "vl2v_k", True),
        ("http://127.0.0.1.example", "vl2v_k", True),
        ("https://vendor.example", "vl2v_k", False),
        ("http://127.0.0.1:8000", "vl2v_k", False),
        ("http://[::1]:8000", "vl2v_k", False),
        ("http://localhost", "vl2v_k", False),
        ("http://vendor.example", None, False),
    ],
)
def test_a_key_that_anybody_on_the_way_could_read(url: str, key: str | None, exposed: bool) -> None:
    with VendorClient(url, key) as client:
        assert client.exposes_key is exposed


def test_without_a_key_the_price_list_can_be_read_and_nothing_bought(vendor: FakeVendor) -> None:
    with VendorClient("http://fake", None, transport=vendor.transport) as client:
        assert client.model().image_price.unit_price_micro == 100
        with pytest.raises(NotAuthorized, match="VL2V_API_KEY"):
            client.summary()


def test_a_model_is_asked_for_by_its_name(client: VendorClient) -> None:
    assert client.model("fake/clip").id == "fake/clip"
    with pytest.raises(VendorError) as caught:
        client.model("no such model")
    assert caught.value.code == "unknown_model"


def test_items_fail_one_by_one(vendor: FakeVendor, client: VendorClient) -> None:
    buy_texts(client)
    delivery = buy_texts(client, ["a cat", "another dog"])
    assert [item.status for item in delivery.items] == ["replayed"]
    assert [(failed.item_key, failed.code) for failed in delivery.failed] == [(KEYS[1], "item_key_mismatch")]
    assert [failed.code for failed in client.replay(["9" * 64]).failed] == ["unknown_item"]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("embedding_dim",), 0),
        (("image_size",), -1),
        (("limits", "max_items"), 0),
        (("limits", "max_request_bytes"), 2**60),
        (("prices", 0, "price_id"), 2**70),
        (("prices", 0, "currency"), "\x1b[2J"),
        (("prices", 0, "currency"), "EURO"),
    ],
)
def test_a_model_that_cannot_be_is_refused(
    vendor: FakeVendor, client: VendorClient, place: tuple[str | int, ...], value: int | str
) -> None:
    def lie(path: str, body: Any) -> Any:
        spot = body["data"][0] if path == "/v1/models" else {}
        for part in place[:-1]:
            spot = spot[part]
        spot[place[-1]] = value
        return body

    vendor.lie = lie
    with pytest.raises(VendorError, match="ask the vendor"):
        client.model()


def test_an_undecodable_answer_is_no_answer(vendor: FakeVendor, client: VendorClient) -> None:
    vendor.before = lambda _request: httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=NotGzip())
    with pytest.raises(VendorUnavailable, match="broke"):
        client.model()


class NotGzip(httpx.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        yield b"plain"
