"""Orders with a poisonous item among good ones: ten kinds, and the code that each must be refused with."""

from __future__ import annotations

import base64
import io
import json
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
from http_target import Answer, Target, multipart
from numpy.typing import NDArray
from PIL import Image

from vl2v_contract.wire.embeddings import RequestOptions
from vl2v_contract.wire.frames import pack_upload
from vl2v_contract.wire.headers import OCTET_STREAM

IMAGES_PATH, TEXTS_PATH = "/v1/embeddings/images", "/v1/embeddings/texts"
BOMB_SIDE = 13_000

Form = Literal["json", "multipart", "framed", "text"]
Verdict: TypeAlias = "NDArray[np.float32] | str"
"""What became of an item: its unit vector `[D]`, or the code that it was refused with."""

_FORMS: tuple[Form, ...] = ("json", "multipart", "framed")
_OUTER_PIXELS = 65_535


@dataclass(frozen=True, slots=True)
class Item:
    """One item of an order.

    Attributes:
        name: the same content has the same name.
        content: a file's bytes, or a text. In a JSON order a text stands for base64 that is none.
        code: what it must be refused with; None if it is good.
    """

    name: str
    content: bytes | str
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """Items of one request, and the form in which they are sent."""

    form: Form
    items: tuple[Item, ...]

    @property
    def clean(self) -> Order | None:
        """The same without what is poisonous; None if nothing is left."""
        good = tuple(item for item in self.items if item.code is None)
        return replace(self, items=good) if good else None

    def request(self, target: Target) -> bytes:
        """The bytes to send."""
        contents = [item.content for item in self.items]
        if self.form == "text":
            return target.request(TEXTS_PATH, _json([{"text": content} for content in contents]))
        if self.form == "json":
            encoded: list[dict[str, bytes | str]] = [{"image": _base64(content)} for content in contents]
            return target.request(IMAGES_PATH, _json(encoded))
        files = [content for content in contents if isinstance(content, bytes)]
        if self.form == "framed":
            return target.request(IMAGES_PATH, pack_upload(RequestOptions(), files), OCTET_STREAM)
        return target.request(IMAGES_PATH, *multipart(files))

    def verdicts(self, answer: Answer) -> list[Verdict]:
        """What the vendor decided about each item."""
        body = json.loads(answer.body)
        if answer.status == 200:
            return [_verdict(item) for item in body["data"]]
        if body["code"] == "all_items_failed":
            return [item["code"] for item in body["items"]]
        return [f"whole request: {body['code']}"] * len(self.items)


def make_orders(photos: Sequence[bytes], requests: int, share: float) -> list[Order]:
    """Orders of one photo, of four photos and of four captions, a `share` of them with one poisonous item."""
    dice = random.Random(0)
    spoiled = set(dice.sample(range(requests), max(len(KINDS), int(requests * share))))
    kinds = _in_turn(len(spoiled))
    orders = []
    for number in range(requests):
        kind = next(kinds) if number in spoiled else None
        is_text = kind in _TEXT_KINDS if kind else dice.random() < 0.2
        size = 4 if is_text or dice.random() < 0.5 else 1
        form: Form = "text" if is_text else dice.choice(_FORMS)
        items = [_caption(dice) if is_text else _photo(photos, dice) for _ in range(size)]
        if kind is not None:
            form = "json" if kind == "not base64" else form
            content, code = _poison(kind)
            items[dice.randrange(size)] = Item(kind, content, code)
        orders.append(Order(form, tuple(items)))
    return orders


def _in_turn(length: int) -> Iterator[str]:
    """Every kind as often as every other."""
    names = list(KINDS)
    return (names[number % len(names)] for number in range(length))


def _photo(photos: Sequence[bytes], dice: random.Random) -> Item:
    place = dice.randrange(len(photos))
    return Item(f"photo {place}", photos[place])


def _caption(dice: random.Random) -> Item:
    caption = f"a photo of {dice.randrange(100)} objects"
    return Item(caption, caption)


@cache
def _poison(kind: str) -> tuple[bytes | str, str]:
    make, code = KINDS[kind]
    return make(), code


def png_bomb() -> bytes:
    """A whole PNG of 169 megapixels in some 160 kB."""
    rows = bytes(1 + BOMB_SIDE)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(rows) for _ in range(BOMB_SIDE)) + packer.flush()
    return _png(BOMB_SIDE, BOMB_SIDE, packed)


def needle() -> bytes:
    """A PNG of 1 x 1,000,000 pixels: small, until its short side is scaled up."""
    return _png(1, 1_000_000, zlib.compress(bytes(2 * 1_000_000)))


def gif_bomb() -> bytes:
    """A GIF whose header says that it is as large as GIFs can be."""
    gif = bytearray(_encoded("GIF"))
    gif[6:10] = struct.pack("<HH", _OUTER_PIXELS, _OUTER_PIXELS)
    return bytes(gif)


def _truncated_jpeg() -> bytes:
    whole = _encoded("JPEG")
    return whole[: len(whole) // 2]


def _broken_png() -> bytes:
    whole = bytearray(_encoded("PNG"))
    middle = len(whole) // 2
    whole[middle : middle + 64] = bytes(64)
    return bytes(whole)


def _encoded(format_name: str) -> bytes:
    """A small picture with some detail, which every format compresses."""
    rows, columns = np.mgrid[0:96, 0:128]
    pixels = np.stack([rows * 2, columns, rows * columns // 48 % 256], axis=-1).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format_name)
    return file.getvalue()


def _png(width: int, height: int, packed: bytes) -> bytes:
    """A PNG of 8-bit grey around its compressed rows."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


KINDS: dict[str, tuple[Callable[[], bytes | str], str]] = {
    "truncated JPEG": (_truncated_jpeg, "undecodable_image"),
    "broken PNG": (_broken_png, "undecodable_image"),
    "no image": (lambda: b"<html>404</html>", "unsupported_image_format"),
    "TIFF": (lambda: _encoded("TIFF"), "unsupported_image_format"),
    "empty file": (lambda: b"", "empty_item"),
    "169 MP PNG": (png_bomb, "image_too_large"),
    "needle": (needle, "image_too_large"),
    "not base64": (lambda: "@@@@", "invalid_encoding"),
    "blank text": (lambda: "   ", "empty_item"),
    "long text": (lambda: "very " * 100 + "long", "text_too_long"),
}
"""What makes each poison, and its code."""

_TEXT_KINDS = {"blank text", "long text"}


def _verdict(item: dict[str, str]) -> Verdict:
    if item["status"] == "failed":
        error: dict[str, str] = item["error"]  # type: ignore[assignment]
        return error["code"]
    return np.frombuffer(base64.b64decode(item["embedding"]), dtype="<f4")


def _base64(content: bytes | str) -> str:
    return content if isinstance(content, str) else base64.b64encode(content).decode()


def _json(items: list[dict[str, bytes | str]]) -> bytes:
    return json.dumps({"items": items}).encode()
