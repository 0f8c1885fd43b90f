"""One frame for everything that travels as raw bytes: a small JSON head, then the bytes that it describes.

    offset      size    content
    0           4       the ASCII letters `VL2V`
    4           4       version of the frame: 1
    8           4       H, the length of the head in bytes
    12          H       the head: one JSON object, UTF-8
    12 + H      0..15   zeros, up to the next offset that 16 divides
    ...         rest    the payload, to the end

Integers are unsigned and little endian. How long the payload must be follows from the head; a receiver checks it. The
payload begins at a multiple of 16, so that numbers in it can be read in place.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

MAGIC: Final = b"VL2V"
VERSION: Final = 1
ALIGNMENT: Final = 16
MAX_HEAD_BYTES: Final = 16 * 1024 * 1024
"""A longer head is refused before it is parsed; one item takes some hundred bytes of it."""

_PRELUDE: Final = struct.Struct("<4sII")

Head = TypeVar("Head", bound=BaseModel)


class ContractError(ValueError):
    """Bytes that are not what the contract says; the message names the fault and repeats no content."""


class Frame(NamedTuple):
    """A frame taken apart.

    Attributes:
        head: JSON, not parsed yet.
        payload: A view of the received bytes, not a copy.
    """

    head: bytes
    payload: memoryview


def pack_frame(head: bytes, payload: Iterable[bytes | memoryview]) -> bytes:
    """One frame of a head and the parts of a payload, in order."""
    end = _PRELUDE.size + len(head)
    return b"".join((_PRELUDE.pack(MAGIC, VERSION, len(head)), head, bytes(_padding(end)), *payload))


def unpack_frame(data: bytes) -> Frame:
    """Take a frame apart.

    Raises:
        ContractError: Truncated, not a frame, of another version, or its head is too long or ends beyond the data.
    """
    if len(data) < _PRELUDE.size:
        raise ContractError(f"a frame has at least {_PRELUDE.size} bytes, and this has {len(data)}")
    magic, version, head_bytes = _PRELUDE.unpack_from(data)
    if magic != MAGIC:
        raise ContractError(f"a frame begins with the letters {MAGIC.decode('ascii')}")
    if version != VERSION:
        raise ContractError(f"the frame is of version {version}, and {VERSION} is read")
    if head_bytes > MAX_HEAD_BYTES:
        raise ContractError(f"the head of the frame has {head_bytes} bytes, and at most {MAX_HEAD_BYTES} are read")
    end = _PRELUDE.size + head_bytes
    start = end + _padding(end)
    if start > len(data):
        raise ContractError(f"the frame ends within its head, which should have {head_bytes} bytes")
    view = memoryview(data)
    if any(view[end:start]):
        raise ContractError("the bytes between head and payload are not zero")
    return Frame(data[_PRELUDE.size : end], view[start:])


def read_head(kind: type[Head], frame: Frame) -> Head:
    """Parse the head.

    Raises:
        ContractError: It is no such message; names the field.
    """
    try:
        return kind.model_validate_json(frame.head)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"]) or "it"
        raise ContractError(f"the head of the frame: {place}: {first['msg']}") from None


def _padding(end: int) -> int:
    return -end % ALIGNMENT
