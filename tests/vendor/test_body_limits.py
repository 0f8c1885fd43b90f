"""Bodies that are too large, too many at once, or never wanted: refused at once, and mostly before they are read."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.vendor.listening_vendor import listening
from support.vendor.serving_shop import LIMITS, Vendor, running_vendor
from vl2v_vendor.domain.errors import Overloaded
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.web import body_limit
from vl2v_vendor.web.body_limit import BODIES_AT_ONCE, SMALL_BODY, BodyLimit

pytestmark = pytest.mark.anyio

IMAGES, TEXTS, OPENAI = "/v1/embeddings/images", "/v1/embeddings/texts", "/v1/embeddings"
MANY = LIMITS.max_request_bytes


class Exchange:
    """One request whose body is handed over piece by piece, and what was answered."""

    def __init__(
        self,
        vendor: Vendor,
        chunks: list[bytes],
        *,
        path: str = IMAGES,
        declared: int | None = None,
        secret: str | None = None,
        kind: str = "application/json",
        ends: bool = True,
    ) -> None:
        sent = {"authorization": f"Bearer {secret or vendor.secret}", "content-type": kind}
        sent |= {"transfer-encoding": "chunked"} if declared is None else {"content-length": str(declared)}
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": path, "raw_path": b"", "query_string": b"", "root_path": "", "server": ("vendor", 80),
            "client": ("127.0.0.1", 1), "state": {},
            "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        }  # fmt: skip
        self._app = vendor.app
        self._messages = self._pieces(chunks, ends)
        self.pieces_read = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body: dict[str, Any] = {}

    def _pieces(self, chunks: list[bytes], ends: bool) -> Iterator[dict[str, Any]]:
        for number, chunk in enumerate(chunks, 1):
            yield {"type": "http.request", "body": chunk, "more_body": not ends or number < len(chunks)}

    async def run(self) -> None:
        await self._app(self.scope, self._receive, self._send)

    async def _receive(self) -> dict[str, Any]:
        message = next(self._messages, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        self.pieces_read += 1
        return message

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message["headers"]}
        elif message.get("body"):
            self.body = json.loads(message["body"])

    @property
    def outcome(self) -> tuple[int, int, str | None]:
        """The status, the pieces of the body that were read, and what becomes of the connection."""
        return self.status, self.pieces_read, self.headers.get("connection")


async def asked(vendor: Vendor, chunks: list[bytes], **how: Any) -> Exchange:
    exchange = Exchange(vendor, chunks, **how)
    await exchange.run()
    return exchange


def fill(monkeypatch: pytest.MonkeyPatch, *full: str) -> None:
    """Leave no room in these lanes."""

    class Lane:
        def __init__(self, modality: str) -> None:
            self._modality = modality

        def check_room(self, items: int) -> None:
            assert items == 1
            if self._modality in full:
                raise Overloaded(f"{self._modality} lane is full", 7)

    monkeypatch.setattr(EncodingLanes, "__getitem__", lambda _lanes, modality: Lane(modality))


@pytest.mark.parametrize(("path", "lane"), [(IMAGES, "image"), (TEXTS, "text")])
async def test_a_full_lane_refuses_before_the_body_is_read(
    path: str, lane: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch, lane)

    async with running_vendor() as vendor:
        refused = await asked(vendor, [b"x" * MANY], path=path, declared=MANY)
        assert refused.outcome == (503, 0, "close")
        assert (refused.body["code"], refused.headers["retry-after"]) == ("overloaded", "7")
        other = TEXTS if path == IMAGES else IMAGES
        assert (await asked(vendor, [b"{"], path=other, declared=1)).outcome == (422, 1, None)
        assert not vendor.ledger.posted


async def test_a_full_lane_refuses_before_the_ledger_is_asked_who_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_arguments: object) -> None:
        raise AssertionError("the ledger was asked")

    async with running_vendor() as vendor:
        monkeypatch.setattr(vendor.ledger, "find_key", nobody)
        fill(monkeypatch, "image")
        refused = await asked(vendor, [b"x"], path=IMAGES, secret="vl2v_unknown", declared=1)
        assert (refused.status, refused.body["code"]) == (503, "overloaded")
        async with vendor.client() as client:
            series = (await client.get("/metrics")).text
        assert f'vl2v_requests_total{{endpoint="{IMAGES}",status="503"}} 1.0' in series


async def test_openais_path_refuses_unread_when_no_lane_has_room(monkeypatch: pytest.MonkeyPatch) -> None:
    async with running_vendor() as vendor:
        fill(monkeypatch, "image", "text")
        refused = await asked(vendor, [b"x" * MANY], path=OPENAI, declared=MANY)
        assert refused.outcome == (503, 0, "close")
        assert refused.body["error"]["code"] == "overloaded"
        assert refused.headers["retry-after"] == "7"
        fill(monkeypatch, "image")
        assert (await asked(vendor, [b"{"], path=OPENAI, declared=1)).outcome == (400, 1, None)


@pytest.mark.parametrize(
    ("how", "outcome"),
    [
        ({"secret": "vl2v_unknown", "declared": MANY}, (401, 0, "close")),
        ({"secret": "vl2v_unknown", "declared": 1000}, (401, 0, None)),
        ({"secret": "vl2v_unknown"}, (401, 0, "close")),
        ({"kind": "text/plain", "declared": MANY}, (415, 0, "close")),
        ({"path": "/nowhere", "declared": MANY}, (404, 0, "close")),
        ({"declared": MANY + 1}, (413, 0, "close")),
        ({"path": "/v1/admin/accounts", "declared": MANY + 1}, (403, 0, "close")),
    ],
)
async def test_a_body_that_is_not_wanted_is_not_read(how: dict[str, Any], outcome: tuple[int, int, str | None]) -> None:
    async with running_vendor() as vendor:
        assert (await asked(vendor, [b"x" * 100] * 9, **how)).outcome == outcome


async def test_a_body_without_a_declared_length_ends_where_it_is_too_long() -> None:
    async with running_vendor() as vendor:
        refused = await asked(vendor, [b"x" * (MANY // 4)] * 9)
        assert refused.outcome == (413, 5, "close")
        assert refused.body["code"] == "payload_too_large"


async def test_a_body_that_stops_coming_ends_its_request_and_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_limit, "_LONGEST_PAUSE_SECONDS", 0.05)

    async with running_vendor() as vendor:
        async with listening(vendor.app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {IMAGES} HTTP/1.1\r\nHost: vendor\r\nAuthorization: Bearer {vendor.secret}\r\n"
            head += "Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
            writer.write(head.encode() + b"x" * 10)
            answer = await asyncio.wait_for(reader.read(), timeout=10)  # to the end of the connection
            writer.close()
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'"code":"request_timeout"' in answer
        assert b"x-should-retry: true" in answer.lower()
        assert b"connection: close" in answer.lower()
        assert not vendor.ledger.posted


class Holder:
    """An app that reads a body and keeps it until it is told to let go, behind the limit."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.held = 0
        self._limit = BodyLimit(self._hold, max_request_bytes=MANY)

    async def _hold(self, scope: Any, receive: Any, send: Any) -> None:
        while (await receive())["more_body"]:
            pass
        self.held += 1
        await self.release.wait()

    async def take(self, *chunks: int, declared: int | None = None, account: str = "a") -> None:
        sent = [] if declared is None else [(b"content-length", str(declared).encode())]
        left = list(chunks)

        async def receive() -> Any:
            body = bytes(left.pop(0))
            return {"type": "http.request", "body": body, "more_body": bool(left)}

        scope = {"type": "http", "headers": sent, "state": {"account_id": account}}
        await self._limit(scope, receive, receive)

    async def is_taken(self, *chunks: int, declared: int | None = None, account: str = "a") -> bool:
        """Whether it could hold these now."""
        try:
            await asyncio.wait_for(self.take(*chunks, declared=declared, account=account), timeout=0.01)
        except TimeoutError:
            return True
        except Overloaded:
            return False
        raise AssertionError


async def test_an_account_holds_half_of_the_room_that_the_others_leave_until_it_is_done() -> None:
    holder = Holder()
    half = MANY // 2
    held = [asyncio.create_task(holder.take(half, half, declared=MANY)) for _ in range(BODIES_AT_ONCE // 2)]
    while holder.held < len(held):
        await asyncio.sleep(0)
    assert not await holder.is_taken(declared=half)  # refused unread: there is nothing to read
    assert await holder.is_taken(MANY, declared=MANY, account="b")
    assert await holder.is_taken(half, half, account="b")
    held.append(asyncio.create_task(holder.take(half, account="b")))
    while holder.held < BODIES_AT_ONCE // 2 + 3:
        await asyncio.sleep(0)
    assert not await holder.is_taken(declared=half + 1, account="b")
    assert not await holder.is_taken(half, 1, account="b")  # says nothing of its length, and is refused when that shows
    assert not await holder.is_taken(half, 1, declared=1, account="b")  # says something else
    assert await holder.is_taken(half, declared=half, account="b")
    assert await holder.is_taken(half, declared=half, account="c")
    holder.release.set()
    await asyncio.gather(*held)
    for _ in range(2 * BODIES_AT_ONCE):
        await holder.take(MANY, declared=MANY)


async def test_a_body_takes_the_room_that_it_declares_before_it_comes() -> None:
    holder = Holder()
    waiting = [asyncio.create_task(holder.take(1, MANY - 1, declared=MANY)) for _ in range(BODIES_AT_ONCE // 2)]
    await asyncio.sleep(0)
    assert not await holder.is_taken(declared=MANY)
    holder.release.set()
    await asyncio.gather(*waiting)


async def test_small_bodies_have_a_room_of_their_own() -> None:
    holder = Holder()
    small = MANY // SMALL_BODY
    large = [asyncio.create_task(holder.take(MANY, declared=MANY)) for _ in range(BODIES_AT_ONCE // 2)]
    held = [asyncio.create_task(holder.take(small, declared=small)) for _ in range(SMALL_BODY // 2)]
    while holder.held < len(large) + len(held):
        await asyncio.sleep(0)
    assert not await holder.is_taken(declared=small)
    assert await holder.is_taken(small, declared=small, account="b")
    holder.release.set()
    await asyncio.gather(*large, *held)


async def test_one_accounts_unfinished_bodies_leave_room_for_others() -> None:
    async with running_vendor() as vendor:
        other = vendor.ledger.issue_key(account_id="acct_other")
        unfinished = [Exchange(vendor, [b"x" * (MANY - 1)], declared=MANY, ends=False) for _ in range(BODIES_AT_ONCE)]
        reading = [asyncio.create_task(exchange.run()) for exchange in unfinished]
        await asyncio.sleep(0.05)
        text = json.dumps({"items": [{"text": "a photo of a dog"}]}).encode()
        for secret in (other, vendor.secret):
            answer = await asked(vendor, [text], path=TEXTS, declared=len(text), secret=secret)
            assert answer.status == 200
        assert (await asked(vendor, [b"x" * MANY], declared=MANY, secret=other)).status == 422  # it was read
        assert [exchange.outcome for exchange in unfinished] == [(0, 1, None)] * 2 + [(503, 0, "close")] * 2
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def test_a_refused_client_hears_so_while_its_body_is_still_unsent(monkeypatch: pytest.MonkeyPatch) -> None:
    fill(monkeypatch, "image")

    async with running_vendor() as vendor:
        async with listening(vendor.app) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST {IMAGES} HTTP/1.1\r\nHost: vendor\r\nAuthorization: Bearer {vendor.secret}\r\n"
            head += f"Content-Type: application/json\r\nContent-Length: {MANY}\r\n\r\n"
            writer.write(head.encode() + b"x" * 1000)
            answer = await asyncio.wait_for(reader.read(), timeout=10)  # to the end of the connection
            writer.close()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b"connection: close" in answer.lower()
