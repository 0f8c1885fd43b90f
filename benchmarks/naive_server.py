"""The server that one writes in an afternoon: FastAPI, open_clip behind a lock, one image a call, JSON floats."""

from __future__ import annotations

import argparse
import base64
import io
import threading
from pathlib import Path

import open_clip
import torch
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import BaseModel
from random_models import RandomModel, load


class ImageRequest(BaseModel):
    """One image file in base64."""

    image: str


class EmbeddingAnswer(BaseModel):
    """Its unit vector."""

    embedding: list[float]


def create_app(model: RandomModel) -> FastAPI:
    """Load the model and serve `POST /embed`."""
    app = FastAPI()
    network, transform = load(model), open_clip.image_transform(model.image_size, is_train=False)
    lock = threading.Lock()

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/embed")
    def embed(request: ImageRequest) -> EmbeddingAnswer:
        picture = Image.open(io.BytesIO(base64.b64decode(request.image)))
        with lock, torch.inference_mode():
            features = network.encode_image(transform(picture)[None], normalize=True)
        return EmbeddingAnswer(embedding=features[0].tolist())

    return app


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("config", type=Path)
    options.add_argument("checkpoint", type=Path)
    options.add_argument("--port", type=int, required=True)
    chosen = options.parse_args()
    app = create_app(RandomModel(chosen.config, chosen.checkpoint))
    uvicorn.run(app, host="127.0.0.1", port=chosen.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
