"""What the client is told by others: a student's card, and a vendor's answers."""

from __future__ import annotations

import io
import json
import logging
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from support.client.fake_vendor import API_KEY, FakeVendor
from support.client.student_factories import SIZE, TINY_VIT, coloured_views, fresh_classifier
from support.fuzz.mutation import mutate_bytes, mutate_json, to_json
from support.fuzz.subject import Fault, OneByOne
from support.ledger.ledger_shop import item_key
from vl2v_client.api.client import VendorClient
from vl2v_client.api.retries import RetryPolicy
from vl2v_client.core.deliveries import Delivery
from vl2v_client.core.errors import ClientError, DataError
from vl2v_client.export.weights import CARD_FILE, export_bundle, load_bundle
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard
from vl2v_contract.texts import printable
from vl2v_contract.wire.headers import OCTET_STREAM

_MOST_SECONDS = 5.0
_BUILT = 0.05
"""Share of the cards that are read with their weights too: that builds a network."""


class Cards(OneByOne):
    """A good student's card, changed: refused, or read as what it says."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="vl2v-fuzz-")
        self._folder = Path(self._home.name)
        card = StudentCard(TINY_VIT, SIZE, ("red", "green", "blue"), "VL2V-ADiP", 0, logit_scale=20.0)
        pixels = coloured_views(5, views=1).pixels[:, 0]
        export_bundle(self._folder, StudentBundle(fresh_classifier(), card), check_pixels=pixels)
        self._card: Any = json.loads((self._folder / CARD_FILE).read_text())

    def make(self, dice: random.Random) -> bytes:
        data = to_json(mutate_json(self._card, dice), dice)
        if dice.random() < 0.2:
            data = mutate_bytes(data, dice)
        return (b"build\n" if dice.random() < _BUILT else b"read\n") + data

    def check(self, case: bytes) -> str:
        """Read a card, now and then with the weights beside it.

        Raises:
            Fault: It is read as something else than it is written as, or takes long.
        """
        how, _, data = case.partition(b"\n")
        began = time.process_time()
        try:
            if how == b"build":
                (self._folder / CARD_FILE).write_bytes(data)
                load_bundle(self._folder)
            card = StudentCard.from_json(data)
        except DataError as error:
            if _steers(str(error)):
                raise Fault(f"an error that steers: {error!r}") from error
            return f"{how.decode()}: refused"
        finally:
            if (spent := time.process_time() - began) > _MOST_SECONDS:
                raise Fault(f"{spent:.1f} seconds of processor time")
        if card.weights_sha256 and StudentCard.from_json(json.dumps(card.to_json()).encode()) != card:
            raise Fault("a card that is not read as it is written")
        return f"{how.decode()}: accepted"

    def finish(self) -> list[Fault]:
        self._home.cleanup()
        return []


_KEYS = [item_key(str(number)) for number in range(3)]


class Answers(OneByOne):
    """An honest vendor's answers, changed on their way: refused by name, or nothing but what is true is believed.

    An input is a line with the name of the question and the media type of the answer, and the answer's bytes.
    """

    def __init__(self) -> None:
        self._questions: dict[str, Callable[[VendorClient], object]] = {
            "model": lambda client: client.model(),
            "keys": lambda client: client.trusted_keys(lambda _ledger: None),
            "summary": lambda client: client.summary(),
            "statement": lambda client: list(client.statement_pages()),
            "texts": lambda client: client.embed_texts(["a dog", "a cat", "a fox"], _KEYS, self._teacher),
            "images": lambda client: client.embed_images(self._pictures, _KEYS, self._teacher),
            "replay": lambda client: client.replay(_KEYS),
        }
        self._pictures = [_png(level) for level in (10, 100, 200)]
        self._teacher = self._ask("model", None, FakeVendor()).value
        self._honest: dict[tuple[str, bool], tuple[bytes, str]] = {}
        self._vectors: dict[str, dict[str, bytes]] = {}
        for name in self._questions:
            for framed in (False, True):
                told = self._ask(name, None, _vendor(name, framed))
                self._honest[name, framed] = told.content, told.kind
                if isinstance(told.value, Delivery):
                    self._vectors[name] = {item.item_key: item.vector.tobytes() for item in told.value.items}
        logging.getLogger("httpx").setLevel(logging.WARNING)

    def make(self, dice: random.Random) -> bytes:
        name, framed = dice.choice(list(self._questions)), dice.random() < 0.5
        content, kind = self._honest[name, framed]
        status = 200 if dice.random() < 0.9 else dice.choice((201, 204, 301, 400, 402, 422, 500, 503))
        if kind.startswith(OCTET_STREAM):
            content = mutate_bytes(content, dice)
        else:
            content = to_json(mutate_json(json.loads(content), dice), dice)
            if dice.random() < 0.15:
                content = mutate_bytes(content, dice)
        return f"{name} {framed} {status} {kind}\n".encode() + content

    def check(self, case: bytes) -> str:
        """Ask a question that is answered so.

        Raises:
            Fault: Another exception than those for users, or a vector that the vendor did not sign for.
        """
        head, _, content = case.partition(b"\n")
        name, framed, status, kind = head.decode().split(" ", 3)
        vendor, began = _vendor(name, framed == "True"), time.process_time()
        try:
            told = self._ask(name, (int(status), content, kind), vendor).value
        except ClientError as error:
            if _steers(str(error)):
                raise Fault(f"an error that steers: {error!r}") from error
            return f"{name}: refused"
        finally:
            if (spent := time.process_time() - began) > _MOST_SECONDS:
                raise Fault(f"{spent:.1f} seconds of processor time")
        if isinstance(told, Delivery):
            for item in told.items:
                if item.vector.tobytes() != self._vectors[name][item.item_key]:
                    raise Fault("a vector that was never sold is believed")
        return f"{name}: believed"

    def _ask(self, name: str, lie: tuple[int, bytes, str] | None, vendor: FakeVendor) -> _Told:
        told = _Told()

        def note(request: httpx.Request, response: httpx.Response) -> httpx.Response:
            if not _is_asked(name, request):
                return response
            if lie is not None:
                return httpx.Response(lie[0], content=lie[1], headers={"Content-Type": lie[2]})
            told.content, told.kind = response.content, response.headers["content-type"]
            return response

        vendor.after = note
        policy = RetryPolicy(max_attempts=1)
        with VendorClient("http://fake", API_KEY, transport=vendor.transport, policy=policy, sleep=_no_sleep) as client:
            told.value = self._questions[name](client)
        return told


class _Told:
    """What a question brought: its value, and the bytes and media type of the answer."""

    value: Any = None
    content: bytes = b""
    kind: str = ""


def _vendor(name: str, framed: bool) -> FakeVendor:
    """A vendor of the same books every time, at which everything is bought before a replay."""
    vendor = FakeVendor()
    vendor.speaks_frames = framed
    if name in ("replay", "statement", "summary"):
        with VendorClient("http://fake", API_KEY, transport=vendor.transport, sleep=_no_sleep) as client:
            client.embed_texts(["a dog", "a cat", "a fox"], _KEYS, client.model())
    return vendor


_PATHS = {"model": "/v1/models", "keys": "/v1/billing/keys"}


def _is_asked(name: str, request: httpx.Request) -> bool:
    """Tell whether a request is the question itself, and not one that comes before it."""
    return request.url.path == _PATHS.get(name, "") or request.url.path.endswith(f"/{name}")


def _steers(text: str) -> bool:
    return printable(text, keep="\n") != text


def _no_sleep(_seconds: float) -> None:
    return


def _png(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, dtype=np.uint8)).save(file, "PNG")
    return file.getvalue()
