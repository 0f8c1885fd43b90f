"""The vendor's services over the ledger in memory and the hash encoder, and images to send to them."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import numpy as np
from fastapi import FastAPI
from PIL import Image

from support.ledger.ledger_shop import FakeClock, fixed_signer
from support.ledger.memory_ledger import MemoryLedger
from vl2v_vendor.domain.encoder import Encoder, Limits, PixelBatch, VectorBatch
from vl2v_vendor.domain.errors import EncodingFailed
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.engine.models.tokenizer import WordTokenizer
from vl2v_vendor.engine.queue.lanes import EncodingLanes
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import preprocessing_of
from vl2v_vendor.ledger_sql.database import open_engine
from vl2v_vendor.ledger_sql.sql_accounts import SqlAccounts
from vl2v_vendor.service.administration import Administration
from vl2v_vendor.service.audit import Audit
from vl2v_vendor.service.decode_turns import DecodeTurns
from vl2v_vendor.service.preparation import Preparation
from vl2v_vendor.service.selling import RecomputeAllowance, Seller
from vl2v_vendor.service.services import Authenticator, ReadinessCheck, Services
from vl2v_vendor.web.app import create_app

RECOMPUTES_PER_MINUTE = 6
PEPPER = b"p" * 32
LIMITS = Limits(max_items=8, max_item_bytes=200_000, max_request_bytes=1_000_000, max_text_bytes=1000)


def app_client(app: FastAPI, secret: str) -> httpx.AsyncClient:
    """A client of an app in this process, which sends an API key."""
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
    return httpx.AsyncClient(
        transport=transport, base_url="http://vendor", headers={"Authorization": f"Bearer {secret}"}
    )


class PickyEncoder(HashEncoder):
    """Refuses any batch that holds a black image; gives grey images a vector of zeros."""

    async def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        if any(not image.any() for image in pixels):
            raise EncodingFailed("RuntimeError: injected")
        vectors = await super().encode_images(pixels)
        vectors[[bool((image == 128).all()) for image in pixels]] = 0
        return vectors


@dataclass
class Vendor:
    """A vendor with one customer."""

    ledger: MemoryLedger
    clock: FakeClock
    services: Services
    app: FastAPI
    secret: str

    def client(self, secret: str | None = None) -> httpx.AsyncClient:
        return app_client(self.app, secret or self.secret)


@asynccontextmanager
async def running_vendor(
    *, limit_units: int = 100, encoder: Encoder | None = None, readiness: dict[str, ReadinessCheck] | None = None
) -> AsyncIterator[Vendor]:
    """Open a vendor with one customer, whose account has a budget of `limit_units`."""
    model = encoder or HashEncoder()
    info = model.info
    signer, clock = fixed_signer(), FakeClock()
    ledger = MemoryLedger(signer, limit_units)
    ledger.set_price(info.id, "image", 100)
    ledger.set_price(info.id, "text", 10)
    lanes = EncodingLanes(model, max_batch_items=4, max_queued_items=16)
    decoder = PillowImageDecoder(
        preprocessing_of(info), max_item_bytes=LIMITS.max_item_bytes, max_pixels=LIMITS.max_pixels
    )
    audit = Audit(ledger, signer, clock)
    # The staff's books lie in a database that nobody reaches.
    accounts = SqlAccounts(open_engine("postgresql://127.0.0.1:1/none"), signer=signer, clock=clock)
    with ThreadPoolExecutor(2) as executor:
        preparation = Preparation(decoder, WordTokenizer(info.context_length), LIMITS, DecodeTurns(executor, 2))
        services = Services(
            ledger=ledger,
            encoder=model,
            lanes=lanes,
            limits=LIMITS,
            authenticator=Authenticator(ledger, clock),
            seller=Seller(
                ledger=ledger,
                signer=signer,
                encoder=model,
                lanes=lanes,
                preparation=preparation,
                recomputes=RecomputeAllowance(clock, RECOMPUTES_PER_MINUTE),
                limits=LIMITS,
                pepper=PEPPER,
            ),
            audit=audit,
            administration=Administration(accounts, audit, executor, currency="EUR"),
            page_secret=PEPPER,
            readiness=readiness or {"ledger": ledger.ping},
        )
        lanes.start()
        try:
            yield Vendor(ledger, clock, services, create_app(services), ledger.issue_key())
        finally:
            await lanes.close()


def png(colour: object = "red", size: tuple[int, int] = (40, 30), mode: str = "RGB") -> bytes:
    return save(Image.new(mode, size, colour), "PNG")  # type: ignore[arg-type]


def save(image: Image.Image, file_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def images(*files: bytes, keys: Sequence[str | None] | None = None, **options: object) -> dict[str, object]:
    """An image request as JSON."""
    named = keys or [None] * len(files)
    items = [
        {"image": base64.b64encode(file).decode(), "item_key": key} for file, key in zip(files, named, strict=True)
    ]
    return {"items": items, **options}


def png_bomb(width: int, height: int) -> bytes:
    """A valid 1-bit PNG of any size, made row by row, so that its pixels never are in memory."""
    compressor = zlib.compressobj(9)
    rows = b"\0" * ((1 + (width + 7) // 8) * 1000)
    data = b"".join(compressor.compress(rows) for _ in range(height // 1000)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
