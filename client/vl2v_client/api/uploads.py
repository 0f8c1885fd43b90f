"""How images are sent: as pixels or as PNG, in a frame or as a multipart form. None of it changes what is bought."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Sequence
from typing import Any, Final, Literal, TypeAlias

import httpx

from vl2v_contract.wire.embeddings import RequestOptions
from vl2v_contract.wire.framed import pack_upload
from vl2v_contract.wire.headers import JSON, OCTET_STREAM, RGB8_TENSOR

ImageForm: TypeAlias = Literal["rgb8", "png"]
"""Pixels as they are, 150 kB at 224 x 224, or PNG, of a photograph about 90 kB, which takes 5 ms to write and read."""

Upload: TypeAlias = Literal["auto", "raw", "png"]
"""What the user wants; `auto` goes by how far away the vendor is."""

UPLOADS: Final[tuple[Upload, ...]] = ("auto", "raw", "png")

ACCEPT_VECTORS: Final = {"Accept": f"{OCTET_STREAM}, {JSON};q=0.9"}
"""Raw vectors from a vendor that knows them; another answers JSON."""

_NEAR_DOMAINS: Final = (".local", ".internal", ".lan", ".localhost")


def choose_form(upload: Upload, offered: Collection[str], url: str) -> ImageForm:
    """Return the cheapest form for this vendor: pixels on the way to a neighbour, PNG over the internet.

    What PNG saves takes longer to write and read than to send from about 100 Mbit/s on.

    Args:
        upload: What the user wants.
        offered: Media types that the vendor reads.
        url: Address of the vendor.
    """
    if RGB8_TENSOR not in offered or upload == "png":
        return "png"
    return "rgb8" if upload == "raw" or is_near(url) else "png"


def is_near(url: str) -> bool:
    """Return whether an address is this machine's or its own network's: nothing is resolved."""
    host = httpx.URL(url).host
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return "." not in host or host.endswith(_NEAR_DOMAINS)


def image_content(
    options: RequestOptions, images: Sequence[bytes], form: ImageForm, offered: Collection[str]
) -> dict[str, Any]:
    """Return a request's content, as `httpx` takes it.

    Args:
        options: Options with one item key per image.
        images: PNG files, or RGB8 pixels `[S, S, 3]`.
        form: Form of the images.
        offered: Media types that the vendor reads; one that reads no frames gets a multipart form.
    """
    media_type = RGB8_TENSOR if form == "rgb8" else OCTET_STREAM
    if media_type in offered:
        return {"content": pack_upload(options, images), "headers": {**ACCEPT_VECTORS, "Content-Type": media_type}}
    files = [("images", (f"{index}.png", data, "image/png")) for index, data in enumerate(images)]
    fields = {"options": options.model_dump_json(exclude_none=True)}
    return {"files": files, "data": fields, "headers": ACCEPT_VECTORS}
