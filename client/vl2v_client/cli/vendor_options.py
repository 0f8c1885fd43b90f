"""Options that every command with a vendor or a cache shares."""

from __future__ import annotations

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Annotated

import typer

from vl2v_client.api.client import VendorClient
from vl2v_client.api.uploads import UPLOADS, Upload
from vl2v_client.cache.store import EmbeddingCache, default_cache_path
from vl2v_client.cli.console import STDERR
from vl2v_client.core.errors import UsageError

DEFAULT_VENDOR_URL = "http://127.0.0.1:8000"
UPLOAD_VARIABLE = "VL2V_UPLOAD"

VendorUrl = Annotated[str, typer.Option("--vendor-url", envvar="VL2V_VENDOR_URL", help="The vendor's address.")]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="VL2V_API_KEY", show_default=False, help="Your key; the variable hides it better."
    ),
]
CachePath = Annotated[
    Path | None,
    typer.Option("--cache", envvar="VL2V_CACHE", help="Cache file. (default: $XDG_DATA_HOME/vl2v/client.db)"),
]
ModelId = Annotated[str | None, typer.Option("--model", help="A model of the vendor; its default if left out.")]
MaxQueries = Annotated[int | None, typer.Option("--max-queries", min=0, help="Refuse to buy more new queries.")]
MaxCost = Annotated[
    str | None, typer.Option("--max-cost", help="Refuse to spend more, in the vendor's currency, such as 2.50.")
]
SkipFailed = Annotated[bool, typer.Option("--skip-failed", help="Go on without images that fail.")]
AsJson = Annotated[bool, typer.Option("--json", help="Write JSON to standard output, and no bars.")]


def open_cache(path: Path | None) -> EmbeddingCache:
    """The cache at `path`, or at its default place."""
    return EmbeddingCache(path or default_cache_path(os.environ))


def open_vendor(url: str, api_key: str | None) -> VendorClient:
    """The vendor at `url`; the user is told if the API key could be read on the way there."""
    vendor = VendorClient(url, api_key, upload=_upload())
    if vendor.exposes_key:
        STDERR.print(
            f"warning: the API key travels unencrypted to {vendor.url}, where anybody on the way can read it and spend "
            "with it; use the vendor's https:// address, or a tunnel to this machine",
            soft_wrap=True,
        )
    return vendor


def _upload() -> Upload:
    """How to send images, by `VL2V_UPLOAD`: it changes the bytes on the way and nothing else, so no command asks."""
    wanted = os.environ.get(UPLOAD_VARIABLE, "auto")
    for upload in UPLOADS:
        if upload == wanted:
            return upload
    raise UsageError(f"{UPLOAD_VARIABLE} is {wanted!r}; set it to one of {', '.join(UPLOADS)}, or not at all")


def to_micro(amount: str | None) -> int | None:
    """Money as typed, in micro-units: `"2.50"` is 2,500,000.

    Raises:
        UsageError: not an amount, negative, or finer than a micro-unit.
    """
    if amount is None:
        return None
    try:
        micro = Decimal(amount).scaleb(6)
    except InvalidOperation as error:
        raise UsageError(f"--max-cost {amount!r} is not an amount of money such as 2.50") from error
    if not micro.is_finite() or micro < 0 or micro != micro.to_integral_value():
        raise UsageError(f"--max-cost {amount!r} must be 0 or more, with at most six decimals")
    return int(micro)
