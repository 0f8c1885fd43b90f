"""What travels in frames: answers with raw vectors, and uploads of raw images.

An answer (`application/octet-stream`) is an `EmbeddingsResponse` whose `encoding` is `raw` and whose items have no
`embedding`, then the vectors `[N, D]` of the N delivered items, in order, in the answer's `dtype`, little endian. An
item is delivered unless its status is `failed`.

An upload is an `UploadHead`, then the bytes of its images, in order, without a gap: whole files
(`application/octet-stream`), or RGB8 pixels at the model's input size, rows from the top
(`application/vnd.vl2v.rgb8`).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Annotated

from pydantic import Field

from vl2v_contract.vectors import FloatVector, decode_vectors, encode_vectors
from vl2v_contract.wire.embeddings import EmbeddingsResponse, Items, RequestOptions, has_too_many_values
from vl2v_contract.wire.frames import ContractError, pack_frame, read_head, unpack_frame

_MAX_DIMENSION = 2**20


class UploadHead(RequestOptions):
    """The head of a framed upload."""

    sizes: Items[Annotated[int, Field(ge=0)]] = Field(description="Bytes of each image, in order.")


def pack_answer(head: EmbeddingsResponse, vectors: Sequence[FloatVector]) -> bytes:
    """Frame an answer.

    Args:
        head: The answer, its items without `embedding`.
        vectors: `[D]` of each delivered item, in order.

    Raises:
        ValueError: Another number of vectors than delivered items, or another width.
    """
    delivered = len(_delivered(head))
    if len(vectors) != delivered or any(vector.shape != (head.embedding_dim,) for vector in vectors):
        raise ValueError(f"{delivered} items of width {head.embedding_dim} were delivered, not these {len(vectors)}")
    # What an item does not have is left out: the head of many items is most of its own size.
    return pack_frame(head.model_dump_json(exclude_unset=True).encode(), [encode_vectors(vectors, head.dtype)])


def unpack_answer(data: bytes) -> tuple[EmbeddingsResponse, dict[int, FloatVector]]:
    """Take an answer apart: its head, and `[D]` of each delivered item by the item's position.

    The vectors are read-only views of `data`; their numbers are not checked.

    Raises:
        ContractError: Not a frame, no such answer, or a payload of another length than its items need.
    """
    frame = unpack_frame(data)
    head = read_head(EmbeddingsResponse, frame)
    if head.encoding != "raw" or any(item.embedding is not None for item in head.data):
        raise ContractError("a framed answer has the encoding `raw`, and no `embedding` in its items")
    if not 1 <= head.embedding_dim <= _MAX_DIMENSION:
        raise ContractError(f"vectors cannot have {head.embedding_dim} numbers")
    delivered = _delivered(head)
    try:
        matrix = decode_vectors(frame.payload, head.dtype, len(delivered), head.embedding_dim)  # [N, D]
    except ValueError as error:
        raise ContractError(f"the payload of the frame: {error}") from error
    return head, dict(zip(delivered, matrix, strict=True))


def pack_upload(options: RequestOptions, images: Sequence[bytes | memoryview]) -> bytes:
    """Frame an upload: options, then the images' bytes."""
    given = options.model_dump(exclude_unset=True)
    head = UploadHead(**given, sizes=[memoryview(image).nbytes for image in images])
    return pack_frame(head.model_dump_json(exclude_unset=True).encode(), images)


def unpack_upload(data: bytes) -> tuple[UploadHead, list[memoryview]]:
    """Take an upload apart; the images are views of `data`.

    Raises:
        ContractError: Not a frame, no such head, or a payload of another length than `sizes` says.
    """
    frame = unpack_frame(data)
    if has_too_many_values(frame.head):
        raise ContractError("the head of the frame holds more values than any upload needs")
    head = read_head(UploadHead, frame)
    if sum(head.sizes) != len(frame.payload):
        raise ContractError(f"`sizes` adds up to {sum(head.sizes)} bytes, but {len(frame.payload)} follow the head")
    ends = accumulate(head.sizes, initial=0)
    return head, [frame.payload[start:end] for start, end in pairwise(ends)]


def _delivered(head: EmbeddingsResponse) -> list[int]:
    """Positions of the items that come with a vector."""
    return [position for position, item in enumerate(head.data) if item.status != "failed"]
