"""A small vendor for the client's tests: honest by default, with hooks to lose answers and to lie.

It keeps the contract: items are charged once for ever, receipts are signed, the statement is one hash chain. It
needs neither the vendor's packages nor a model, answers in process (`transport`) or on loopback (`served`).
"""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import numpy as np
from PIL import Image

from support.client.fake_ledger import ACCOUNT_ID, LEDGER_ID, Body, FakeLedger, Posted
from support.client.fake_wire import FRAMED_CARD, frame_answer, read_images
from support.loopback import serve_on_loopback
from vl2v_contract.chain import ChargedItem
from vl2v_contract.identity import rgb8_sha, sha256_hex, text_sha
from vl2v_contract.records import recompute_message
from vl2v_contract.vectors import result_sha, to_base64
from vl2v_contract.wire import errors as wire_errors
from vl2v_contract.wire.headers import OCTET_STREAM

API_KEY = "vl2v_fake-key"


@dataclass(frozen=True)
class Paid:
    vector: np.ndarray
    seq: int
    content_sha: str


class FakeVendor(FakeLedger):
    """Attributes that tests set: `before` and `after` see every request and may raise or answer; `lie` edits bodies.

    It is of the version that reads and writes no frames, unless `speaks_frames`.
    """

    def __init__(self, *, budget: int = 10_000, dimension: int = 16, image_size: int = 8, max_items: int = 64) -> None:
        super().__init__(budget=budget)
        self.dimension, self.image_size, self.max_items = dimension, image_size, max_items
        self.paid: dict[str, Paid] = {}
        self.expired: set[str] = set()
        self.seen: list[str] = []
        self.speaks_frames = False
        self.bad_contents: set[str] = set()
        self.before: Callable[[httpx.Request], httpx.Response | None] = lambda _request: None
        self.after: Callable[[httpx.Request, httpx.Response], httpx.Response] = lambda _request, response: response
        self.lie: Callable[[str, Body], Body] = lambda _path, body: body
        self._lock = threading.Lock()

    # HTTP

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        with self._lock:
            self.seen.append(f"{request.method} {request.url.path}")
        early = self.before(request)
        if early is not None:
            return early
        with self._lock:
            response = self._answer(request)
        return self.after(request, response)

    def problem(self, status: int, code: str, detail: str = "refused", **extra: Any) -> httpx.Response:
        retryable = wire_errors.ErrorCode(code) in wire_errors.RETRYABLE_CODES
        body = {
            "type": "urn:x", "title": code, "status": status, "detail": detail, "code": code,
            "request_id": "req_refused", "retryable": retryable, **extra,
        }  # fmt: skip
        return httpx.Response(status, json=body, headers={"X-Should-Retry": str(retryable).lower()})

    def _answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if path == "/v1/models":
            return self._json(path, {"data": [self._card()]})
        if path.startswith("/v1/models/"):
            known = path == f"/v1/models/{self.model_id}"
            return self._json(path, self._card()) if known else self.problem(404, "unknown_model")
        if path == "/v1/billing/keys":
            return self._json(path, {"ledger_id": LEDGER_ID, "keys": self.public_keys()})
        if request.headers.get("authorization") != f"Bearer {API_KEY}":
            return self.problem(401, "unauthenticated", "no valid API key")
        if path == "/v1/billing/summary":
            return self._json(path, self.summary())
        if path == "/v1/billing/statement":
            asked = dict(request.url.params)
            signed = asked.pop("signed", "") == "true"
            return self._json(path, self.statement(**{k: int(v) for k, v in asked.items()}, signed=signed))
        if path == "/v1/embeddings/replay":
            return self._replay(request)
        return self._embed(path, request)

    def _json(self, path: str, body: Body) -> httpx.Response:
        return httpx.Response(200, json=self.lie(path, body))

    def _deliver(self, request: httpx.Request, body: Body) -> httpx.Response:
        if not (self.speaks_frames and OCTET_STREAM in request.headers["accept"]):
            return self._json(request.url.path, body)
        framed = frame_answer(self.lie(request.url.path, body))
        return httpx.Response(200, content=framed, headers={"Content-Type": OCTET_STREAM})

    def _card(self) -> Body:
        prices = [
            {"price_id": i, "modality": modality, "unit_price_micro": micro, "currency": "EUR", "valid_from": 0}
            for modality, (i, micro) in self.prices.items()
        ]
        limits = {
            "max_items": self.max_items, "max_item_bytes": 10**6, "max_request_bytes": 10**7,
            "max_pixels": 10**6, "max_text_bytes": 1000,
        }  # fmt: skip
        return {
            "id": self.model_id, "ledger_id": LEDGER_ID, "embedding_dim": self.dimension,
            "image_size": self.image_size, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
            "preprocessing_id": "fake-v1", "context_length": 77, "logit_scale": 100.0,
            "weights_sha": self.weights_sha, "precision": "fp32", "prices": prices, "limits": limits,
            **(FRAMED_CARD if self.speaks_frames else {}),
        }  # fmt: skip

    # Selling

    def vector(self, content_sha: str) -> np.ndarray:
        digest = hashlib.shake_256(f"{self.weights_sha}{content_sha}".encode()).digest(4 * self.dimension)
        numbers = np.frombuffer(digest, "<i4").astype(np.float64)
        return (numbers / np.linalg.norm(numbers)).astype(np.float32)

    def _embed(self, path: str, request: httpx.Request) -> httpx.Response:
        modality = "image" if path.endswith("images") else "text"
        options, contents = self._read(modality, request)
        price_id, _ = self.prices[modality]
        if options.get("price_id") not in (None, price_id):
            return self.problem(409, "price_changed", "another price is in force")
        keys = options["item_keys"]
        failed: dict[int, tuple[str, str]] = {}
        new: list[int] = []
        for i, (key, content) in enumerate(zip(keys, contents, strict=True)):
            if content in self.bad_contents:
                failed[i] = ("undecodable_image", "not an image")
            elif key in self.paid and self.paid[key].content_sha != content:
                failed[i] = ("item_key_mismatch", "another content was bought under this key")
            elif key not in self.paid:
                new.append(i)
        left = self.limit_units - self.used_units
        if len(new) > left and (not options.get("allow_partial") or (left == 0 and len(new) == len(keys))):
            extra = {"limit_units": self.limit_units, "remaining_units": left, "budget": "account"}
            return self.problem(402, "budget_exhausted", "too few queries left", **extra)
        failed |= dict.fromkeys(new[left:], ("budget_exhausted", "no queries left"))
        if len(failed) == len(keys):
            items = [{"index": i, "code": code, "detail": detail} for i, (code, detail) in failed.items()]
            return self.problem(422, "all_items_failed", items=items)
        posted = self._charge(modality, [(keys[i], contents[i]) for i in new[:left]])
        return self._deliver(request, self._delivery(keys, failed, posted, contents))

    def _charge(self, modality: str, bought: list[tuple[str, str]]) -> Posted | None:
        if not bought:
            return None
        vectors = [self.vector(content) for _, content in bought]
        items = [ChargedItem(key, result_sha(v), 1) for (key, _), v in zip(bought, vectors, strict=True)]
        posted = self.post("charge", len(items), items, modality)
        for (key, content), vector in zip(bought, vectors, strict=True):
            self.paid[key] = Paid(vector, posted.entry.seq, content)
        return posted

    def _replay(self, request: httpx.Request) -> httpx.Response:
        keys = json.loads(request.content)["item_keys"]
        failed = {i: ("unknown_item", "never paid") for i, key in enumerate(keys) if key not in self.paid}
        if len(failed) == len(keys):
            items = [{"index": i, "code": code, "detail": detail} for i, (code, detail) in failed.items()]
            return self.problem(422, "all_items_failed", items=items)
        return self._deliver(request, self._delivery(keys, failed, None, [None] * len(keys)))

    def _delivery(
        self, keys: list[str], failed: dict[int, tuple[str, str]], posted: Posted | None, contents: list[Any]
    ) -> Body:
        data: list[Body] = []
        for i, key in enumerate(keys):
            if i in failed:
                error = dict(zip(("code", "detail"), failed[i], strict=True))
                data.append({"index": i, "item_key": key, "status": "failed", "error": error})
            else:
                data.append({"index": i, "item_key": key, **self._result(key, posted)})
        billed = posted.entry.units if posted else 0
        usage = {
            "billed_units": billed, "replayed_units": len(keys) - len(failed) - billed, "failed_items": len(failed),
            "unit_price_micro": posted.entry.unit_price_micro if posted else 0,
            "amount_micro": posted.entry.amount_micro if posted else 0, "currency": "EUR",
            "price_id": posted.entry.price_id if posted else None,
        }  # fmt: skip
        return {
            "request_id": posted.entry.request_id if posted else "req_free", "model": self.model_id,
            "embedding_dim": self.dimension, "encoding": "base64", "dtype": "float16", "data": data, "usage": usage,
            "budget": {"limit_units": self.limit_units, "remaining_units": self.limit_units - self.used_units},
            "receipt": self.receipt(posted) if posted else None,
            "paid_by": self._payments({row["seq"] for row in data if "seq" in row} - {posted and posted.entry.seq}),
        }  # fmt: skip

    def _payments(self, seqs: set[int | None]) -> list[Body]:
        rows = [row for row in self.posted if row.entry.seq in seqs]
        return [{"receipt": self.receipt(row), "items": [asdict(item) for item in row.items]} for row in rows]

    def _result(self, key: str, posted: Posted | None) -> Body:
        paid = self.paid[key]
        vector, recompute = paid.vector, None
        status = "billed" if posted and paid.seq == posted.entry.seq else "replayed"
        if key in self.expired:
            status, vector = "recomputed", np.roll(paid.vector, 1)
            note = {
                "v": 1, "ledger_id": LEDGER_ID, "account_id": ACCOUNT_ID, "item_key": key, "seq": paid.seq,
                "recompute_of": result_sha(paid.vector), "result_sha": result_sha(vector),
                "key_id": self.keys[-1].key_id,
            }  # fmt: skip
            recompute = {"note": note, "signature": self.keys[-1].sign(recompute_message(note))}
        return {
            "status": status, "embedding": to_base64(vector, "float16"), "result_sha": result_sha(paid.vector),
            "seq": paid.seq, "recompute": recompute,
        }  # fmt: skip

    def _read(self, modality: str, request: httpx.Request) -> tuple[Body, list[str]]:
        if modality == "text":
            body = json.loads(request.content)
            body["item_keys"] = [item["item_key"] for item in body["items"]]
            return body, [text_sha(item["text"]) for item in body["items"]]
        return read_images(request, self.image_size, self._image_sha)

    def _image_sha(self, data: bytes) -> str:
        with Image.open(io.BytesIO(data)) as image:
            if image.size != (self.image_size, self.image_size):
                return sha256_hex(data)
            return rgb8_sha(image.convert("RGB").tobytes(), width=image.width, height=image.height)


def served(vendor: FakeVendor) -> AbstractContextManager[str]:
    """The vendor on loopback; yields its URL."""

    def respond(exchange: BaseHTTPRequestHandler, content: bytes) -> None:
        url, headers = f"http://fake{exchange.path}", dict(exchange.headers)
        try:
            response = vendor.handle(httpx.Request(exchange.command, url, headers=headers, content=content))
            exchange.send_response(response.status_code)
            for name, value in response.headers.items():
                if name != "content-length":
                    exchange.send_header(name, value)
            exchange.send_header("Content-Length", str(len(response.content)))
            exchange.end_headers()
            exchange.wfile.write(response.content)
            exchange.wfile.flush()
        except (httpx.TransportError, OSError):
            exchange.close_connection = True

    return serve_on_loopback(respond)
