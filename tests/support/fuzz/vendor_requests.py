"""Requests to the vendor, most of them with something wrong: JSON, forms, frames, and acts of the staff."""

from __future__ import annotations

import base64
import json
import random
import struct
from typing import Any

from support.fuzz.mutation import mutate_bytes, mutate_json, odd_text, odd_value, to_json
from support.fuzz.vendor_subject import IMAGE_SIZE
from support.ledger.ledger_shop import item_key
from support.vendor.serving_shop import noise, png, save
from vl2v_contract.wire.embeddings import RequestOptions
from vl2v_contract.wire.frames import pack_frame, pack_upload
from vl2v_contract.wire.headers import JSON, MULTIPART, OCTET_STREAM, RGB8_TENSOR

IMAGES, TEXTS, REPLAY, OPENAI = (f"/v1/embeddings{path}" for path in ("/images", "/texts", "/replay", ""))
PICTURES = (
    png("red", (IMAGE_SIZE, IMAGE_SIZE)), png("blue", (40, 30)), save(noise(20, 20), "JPEG"),
    save(noise(9, 30), "GIF"), save(noise(16, 16), "WEBP"), b"no picture", b"",
)  # fmt: skip
_KEYS = ("rich",) * 8 + ("poor", "nobody")
_ACCEPT = (JSON, JSON, OCTET_STREAM, f"{OCTET_STREAM};q=0.5, */*", "text/html", "")
_NAMES = 200
"""Of item keys: some are paid before, for this content or another."""
_MODEL = "hash-64"
_BOUNDARY = "boundary"
_CLEAN = 0.2
"""Share of the requests in which nothing is changed."""


def json_request(dice: random.Random) -> bytes:
    """A sale or a replay as JSON."""
    path = dice.choice((TEXTS, TEXTS, IMAGES, REPLAY, OPENAI))
    value = _JSON_BODIES[path](dice)
    is_clean = dice.random() < _CLEAN
    body = json.dumps(value).encode() if is_clean else to_json(mutate_json(value, dice), dice)
    if not is_clean and dice.random() < 0.2:
        body = mutate_bytes(body, dice)
    return request_text(dice, "POST", path, JSON, body)


def form_request(dice: random.Random) -> bytes:
    """An image request as a multipart form."""
    parts = [_part(dice, "images", dice.choice(PICTURES)) for _ in range(dice.choice((0, 1, 2, 3, 9)))]
    if dice.random() < 0.7:
        options = _options(dice, len(parts))
        parts.insert(dice.randint(0, len(parts)), _part(dice, "options", json.dumps(options).encode(), file=False))
    kind, is_clean = f"{MULTIPART}; boundary={_BOUNDARY}", dice.random() < _CLEAN
    body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    if not is_clean:
        if dice.random() < 0.7:
            body = mutate_bytes(body, dice)
        if dice.random() < 0.15:
            odd = (_BOUNDARY[:-1], f'"{_BOUNDARY}"', "", "x" * 300, f"{_BOUNDARY}; charset=utf-16", "\xff")
            kind = f"{MULTIPART}; boundary={dice.choice(odd)}"
    return request_text(dice, "POST", IMAGES, kind, body)


def frame_request(dice: random.Random) -> bytes:
    """An image request as a frame, of files or of pixels."""
    is_pixels = dice.random() < 0.5
    pixels = bytes(IMAGE_SIZE * IMAGE_SIZE * 3)
    images = [pixels if is_pixels else dice.choice(PICTURES) for _ in range(dice.choice((1, 1, 2, 3, 9)))]
    options = _options(dice, len(images))
    if dice.random() < _CLEAN:
        body = pack_upload(RequestOptions(**options), images)
    else:
        head = mutate_json({**options, "sizes": [len(image) for image in images]}, dice)
        body = pack_frame(to_json(head, dice), images)
    if dice.random() < 0.4:
        body = mutate_bytes(body, dice)
    elif dice.random() < 0.1:
        length = dice.choice((0, 1, 2**24, 2**24 + 1, 2**31, 2**32 - 1))
        body = body[:8] + struct.pack("<I", length) + body[12:]
    return request_text(dice, "POST", IMAGES, RGB8_TENSOR if is_pixels else OCTET_STREAM, body)


def staff_request(dice: random.Random) -> bytes:
    """An act of the staff, or a question of theirs, mostly with something wrong in its values."""
    name = dice.choice(("rich", "poor", "acct_none", f"a{dice.randrange(30)}", _word(dice)))
    method, path, value = _act(dice, name)
    body = b""
    if value is not None:
        body = json.dumps(value).encode() if dice.random() < _CLEAN else to_json(mutate_json(value, dice), dice)
    key = "staff" if dice.random() < 0.95 else dice.choice(("rich", "nobody"))
    return request_text(dice, method, path, JSON, body, key=key)


def request_text(
    dice: random.Random, method: str, path: str, kind: str, body: bytes, *, key: str | None = None
) -> bytes:
    """Write an input as `vendor_subject` reads it."""
    head = f"{method} {path} {key or dice.choice(_KEYS)}\n{kind} | {dice.choice(_ACCEPT)}\n\n"
    return head.encode(errors="replace") + body


def _options(dice: random.Random, items: int) -> dict[str, Any]:
    choices: dict[str, Any] = {
        "model": _MODEL, "encoding": dice.choice(("base64", "float", "raw")),
        "dtype": dice.choice(("float32", "float16")), "price_id": dice.choice((1, 2, 99)),
        "max_charge_micro": dice.choice((0, 10**9)), "allow_partial": True,
    }  # fmt: skip
    if items:
        choices["item_keys"] = [_key(dice) for _ in range(items)]
    return {name: value for name, value in choices.items() if dice.random() < 0.4}


def _key(dice: random.Random) -> str | None:
    return None if dice.random() < 0.3 else item_key(str(dice.randrange(_NAMES)))


def _texts(dice: random.Random) -> Any:
    texts = [dice.choice(("a dog", "a cat", odd_text(dice))) for _ in range(_few(dice))]
    items = [{"text": text, "item_key": _key(dice)} for text in texts]
    return {"items": items, "truncate": dice.random() < 0.3, **_options(dice, 0)}


def _images(dice: random.Random) -> Any:
    files = [base64.b64encode(dice.choice(PICTURES)).decode() for _ in range(_few(dice))]
    return {"items": [{"image": file, "item_key": _key(dice)} for file in files], **_options(dice, 0)}


def _replay(dice: random.Random) -> Any:
    keys = [item_key(str(dice.randrange(_NAMES))) for _ in range(_few(dice))]
    return {"item_keys": keys, "encoding": dice.choice(("base64", "float", "raw")), "dtype": "float16"}


def _openai(dice: random.Random) -> Any:
    picture = "data:image/png;base64," + base64.b64encode(dice.choice(PICTURES)).decode()
    forms: tuple[Any, ...] = (
        "a dog", ["a dog", odd_text(dice)], [picture], [{"type": "text", "text": "a dog"}],
        [{"type": "image_url", "image_url": {"url": picture}}], [{"image": picture}], [[1, 2, 3]],
        [{"content": [{"type": "text", "text": "a dog"}]}],
    )  # fmt: skip
    encoding = dice.choice(("float", "base64"))
    return {"model": _MODEL, "input": dice.choice(forms), "encoding_format": encoding, "user": "u"}


_JSON_BODIES = {TEXTS: _texts, IMAGES: _images, REPLAY: _replay, OPENAI: _openai}


def _few(dice: random.Random) -> int:
    return dice.choice((1, 1, 2, 3, 8, 9))


def _part(dice: random.Random, name: str, content: bytes, *, file: bool = True) -> bytes:
    named = f'; filename="{dice.choice(("a.png", "", "ü.png", "../a"))}"' if file else ""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n'
    more = "Content-Type: image/png\r\n" if dice.random() < 0.5 else ""
    return f"{head}{more}\r\n".encode() + content + b"\r\n"


def _word(dice: random.Random) -> str:
    """A word that can stand in a path: no space, and no character that ends it."""
    letters = [letter for letter in odd_text(dice) if letter.isprintable() and letter not in " ?#/\\%\n"]
    return "".join(letters)[:200] or "x"


def _query(dice: random.Random, *names: str) -> str:
    pairs = [f"{name}={dice.choice((0, 1, -1, 10, 500, 501, 2**53, 2**64, 'x', '', 'NaN'))}" for name in names]
    return "&".join(pair for pair in pairs if dice.random() < 0.7)


def _act(dice: random.Random, name: str) -> tuple[str, str, Any]:
    """One act or question of the staff: method, path, and the value of its body, None without one."""
    account = f"/v1/admin/accounts/{name}"
    price = {"model_id": dice.choice((_MODEL, "other")), "modality": "text", "unit_price_micro": 10, "currency": "EUR"}
    key = {"scopes": ["embed", "billing"], "limit_units": 3, "expires_days": 1.5, "name": "laptop"}
    acts: tuple[tuple[str, str, Any], ...] = (
        ("POST", "/v1/admin/accounts", {"name": name, "budget_units": 10, "currency": "EUR"}),
        ("POST", f"{account}/topups", {"units": 5, "note": "invoice 7"}),
        ("POST", f"{account}/topups", odd_value(dice)),
        ("POST", f"{account}/refunds", {"seq": 1, "units": 1, "note": "sorry"}),
        ("POST", f"{account}/keys", key),
        ("POST", f"/v1/admin/keys/{name}/revocation", None),
        ("POST", "/v1/admin/prices", price),
        ("GET", account, None),
        ("GET", f"{account}/keys", None),
        ("GET", f"{account}/summary", None),
        ("GET", f"{account}/statement?{_query(dice, 'after_seq', 'limit')}", None),
        ("GET", f"/v1/admin/log?{_query(dice, 'after_id', 'limit')}", None),
    )
    return dice.choice(acts)


WRITERS = {"json": json_request, "multipart": form_request, "frames": frame_request, "admin": staff_request}
"""Of each class of requests the function that makes an input."""
