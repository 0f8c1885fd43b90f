"""The forms in which the small vendor of the client's tests reads images and delivers vectors."""

from __future__ import annotations

import base64
import email
import email.policy
import json
from collections.abc import Callable
from typing import Any

import httpx

from support.client.fake_ledger import Body
from vl2v_contract.identity import rgb8_sha
from vl2v_contract.wire.frames import pack_frame, unpack_upload
from vl2v_contract.wire.headers import JSON, MULTIPART, OCTET_STREAM, RGB8_TENSOR

FRAMED_CARD = {"image_uploads": [JSON, MULTIPART, OCTET_STREAM, RGB8_TENSOR], "answers": [JSON, OCTET_STREAM]}
"""What the card of a vendor that speaks frames says."""


def read_images(request: httpx.Request, image_size: int, file_sha: Callable[[bytes], str]) -> tuple[Body, list[str]]:
    """The options, and each image's content hash."""
    media_type = request.headers["content-type"].partition(";")[0]
    if media_type == MULTIPART:
        options, files = _read_form(request)
        return options, [file_sha(file) for file in files]
    head, views = unpack_upload(request.content)
    options = head.model_dump(exclude_unset=True)
    if media_type == RGB8_TENSOR:
        return options, [rgb8_sha(view, width=image_size, height=image_size) for view in views]
    return options, [file_sha(bytes(view)) for view in views]


def frame_answer(body: Body) -> bytes:
    """A JSON answer, as it may have been changed by a lie, as a frame."""
    items = [{**item} for item in body["data"]]
    vectors = [base64.b64decode(item.pop("embedding")) for item in items if item["status"] != "failed"]
    return pack_frame(json.dumps({**body, "encoding": "raw", "data": items}).encode(), vectors)


def _read_form(request: httpx.Request) -> tuple[Body, list[bytes]]:
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    message: Any = email.message_from_bytes(head + request.content, policy=email.policy.HTTP)
    options: Body = {}
    files = []
    for part in message.iter_parts():
        payload = part.get_payload(decode=True)
        if part.get_param("name", header="content-disposition") == "options":
            options = json.loads(payload)
        else:
            files.append(payload)
    return options, files
