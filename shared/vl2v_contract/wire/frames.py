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

An answer (`application/octet-stream`) is an `EmbeddingsResponse` whose `encoding` is `raw` and whose items have no
`embedding`, then the vectors `[N, D]` of the N delivered items, in order, in the answer's `dtype`, little endian. An
item is delivered unless its status is `failed`.

An upload is an `UploadHead`, then the bytes of its images, in order, without a gap: whole files
(`application/octet-stream`), or RGB8 pixels at the model's input size, rows from the top
(`application/vnd.vl2v.rgb8`).
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, Field, ValidationError
from pydantic_core import from_json

from vl2v_contract.vectors import FloatVector, decode_vectors, encode_vector
from vl2v_contract.wire.embeddings import EmbeddingsResponse, Items, RequestOptions, has_too_many_values

MAGIC: Final = b"VL2V"
VERSION: Final = 1
ALIGNMENT: Final = 16
MAX_HEAD_BYTES: Final = 16 * 1024 * 1024
"""A longer head is refused before it is parsed; one item takes some hundred bytes of it."""

_PRELUDE: Final = struct.Struct("<4sII")

Head = TypeVar("Head", bound=BaseModel)


class ContractError(ValueError):
    """Bytes that are not what the contract says; the message names the fault and repeats no content."""


def pack_frame(head: bytes, payload: Iterable[bytes | memoryview]) -> bytes:
    """Make one frame of a head and the parts of a payload, in order."""
    end = _PRELUDE.size + len(head)
    return b"".join((_PRELUDE.pack(MAGIC, VERSION, len(head)), head, bytes(_padding(end)), *payload))


def unpack_frame(data: bytes) -> tuple[bytes, memoryview]:
    """Take a frame apart: its head, JSON that is not parsed yet, and its payload, a view of `data`.

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
    return data[_PRELUDE.size : end], view[start:]


def _read_head(kind: type[Head], head: bytes) -> Head:
    """Parse the head.

    Raises:
        ContractError: It is no such message; names the field.
    """
    try:
        # In two steps: in one, pydantic copies an object for each field that it lacks.
        found = from_json(head)
    except ValueError as error:
        raise ContractError(f"the head of the frame: it: Invalid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ContractError("the head of the frame: it: Input should be an object")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part)[:40] for part in first["loc"]) or "it"
        raise ContractError(f"the head of the frame: {place}: {first['msg']}") from None


def _padding(end: int) -> int:
    return -end % ALIGNMENT


class UploadHead(RequestOptions):
    """The head of a framed upload."""

    sizes: Items[Annotated[int, Field(ge=0)]] = Field(description="Bytes of each image, in order.")


def pack_answer(head: EmbeddingsResponse, vectors: Sequence[FloatVector]) -> bytes:
    """Frame an answer, its items without `embedding`, and the vector `[D]` of each delivered item, in order.

    Raises:
        ValueError: Another number of vectors than delivered items, or another width.
    """
    delivered = len(_delivered(head))
    if len(vectors) != delivered or any(vector.shape != (head.embedding_dim,) for vector in vectors):
        raise ValueError(f"{delivered} items of width {head.embedding_dim} were delivered, not these {len(vectors)}")
    # What an item does not have is left out: the head of many items is most of its own size.
    return pack_frame(head.model_dump_json(exclude_unset=True).encode(), [encode_vector(vectors, head.dtype)])


def unpack_answer(data: bytes) -> tuple[EmbeddingsResponse, dict[int, FloatVector]]:
    """Take an answer apart: its head, and `[D]` of each delivered item by the item's position.

    The vectors are read-only views of `data`; their numbers are not checked.

    Raises:
        ContractError: Not a frame, no such answer, or a payload of another length than its items need.
    """
    json, payload = unpack_frame(data)
    head = _read_head(EmbeddingsResponse, json)
    if head.encoding != "raw" or any(item.embedding is not None for item in head.data):
        raise ContractError("a framed answer has the encoding `raw`, and no `embedding` in its items")
    if not 1 <= head.embedding_dim <= 2**20:
        raise ContractError(f"vectors cannot have {head.embedding_dim} numbers")
    delivered = _delivered(head)
    try:
        matrix = decode_vectors(payload, head.dtype, len(delivered), head.embedding_dim)  # [N, D]
    except ValueError as error:
        raise ContractError(f"the payload of the frame: {error}") from error
    return head, dict(zip(delivered, matrix, strict=True))


def pack_upload(options: RequestOptions, images: Sequence[bytes | memoryview]) -> bytes:
    """Frame an upload: options, then the images' bytes."""
    sizes = [memoryview(image).nbytes for image in images]
    head = UploadHead(**options.model_dump(exclude_unset=True), sizes=sizes)
    return pack_frame(head.model_dump_json(exclude_unset=True).encode(), images)


def unpack_upload(data: bytes) -> tuple[UploadHead, list[memoryview]]:
    """Take an upload apart; the images are views of `data`.

    Raises:
        ContractError: Not a frame, no such head, or a payload of another length than `sizes` says.
    """
    json, payload = unpack_frame(data)
    if has_too_many_values(json):
        raise ContractError("the head of the frame holds more values than any upload needs")
    head = _read_head(UploadHead, json)
    if sum(head.sizes) != len(payload):
        raise ContractError(f"`sizes` adds up to {sum(head.sizes)} bytes, but {len(payload)} follow the head")
    return head, [payload[start:end] for start, end in pairwise(accumulate(head.sizes, initial=0))]


def _delivered(head: EmbeddingsResponse) -> list[int]:
    """Return positions of the items that come with a vector."""
    return [position for position, item in enumerate(head.data) if item.status != "failed"]
