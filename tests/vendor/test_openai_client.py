"""OpenAI's own client against the vendor; skipped where it is not installed (`pip install openai`)."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from support.vendor.listening_vendor import listening
from support.vendor.serving_shop import png, running_vendor

pytestmark = pytest.mark.anyio

openai: Any = pytest.importorskip("openai")

MODEL = "hash-64"


def talk(port: int, secret: str) -> None:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=secret)
    assert [model.id for model in client.models.list().data] == [MODEL]
    usual = client.embeddings.create(model=MODEL, input=["a photo of a dog", "a photo of a cat"])
    plain = client.embeddings.create(model=MODEL, input="a photo of a dog", encoding_format="float")
    assert [len(item.embedding) for item in usual.data] == [64, 64]
    assert usual.data[0].embedding == pytest.approx(plain.data[0].embedding, abs=1e-7)
    assert usual.usage.total_tokens == 14
    image = f"data:image/png;base64,{base64.b64encode(png()).decode()}"
    assert len(client.embeddings.create(model=MODEL, input=[image]).data) == 1
    named = {"Idempotency-Key": "order 7"}
    answers = [
        client.embeddings.with_raw_response.create(model=MODEL, input="a dog", extra_headers=named) for _ in range(2)
    ]
    assert [answer.headers["x-vl2v-billed-units"] for answer in answers] == ["1", "0"]
    for kind, code, wrong in (
        (openai.BadRequestError, "empty_item", {"input": ["a", " "]}),
        (openai.BadRequestError, "invalid_request", {"input": "a", "dimensions": 8}),
        (openai.NotFoundError, "model_not_found", {"input": "a", "model": "text-embedding-3-small"}),
        (openai.APIStatusError, "budget_exhausted", {"input": ["a"] * 8}),
    ):
        with pytest.raises(kind) as caught:
            client.embeddings.create(**{"model": MODEL, **wrong})
        assert caught.value.code == code
    lacking = openai.OpenAI(base_url=f"http://127.0.0.1:{port}", api_key=secret)
    with pytest.raises(openai.NotFoundError, match="lacks /v1"):
        lacking.embeddings.create(model=MODEL, input="a")
    part = {"type": "image_url", "image_url": {"url": image}}
    assert len(client.embeddings.create(model=MODEL, input=[part]).data) == 1
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="vl2v_no").embeddings.create(
            model=MODEL, input="a"
        )


async def test_openais_client_works_with_its_defaults_and_does_not_retry_what_is_final() -> None:
    async with running_vendor(limit_units=12) as vendor:
        async with listening(vendor.app) as port:
            await asyncio.to_thread(talk, port, vendor.secret)
        assert vendor.ledger.used_units == 6
