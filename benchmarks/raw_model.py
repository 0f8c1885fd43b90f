"""The bare model: open_clip in one process, without a server. Does one task per line of JSON on standard input.

`RawModel` is the caller's end, `_Worker` the process's. Every task answers one line of JSON.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from random_models import RandomModel, load

_BATCHES = (8, 16, 32)
_GPU_BATCH = 256


@dataclass(frozen=True, slots=True)
class Way:
    """How a throughput is reached: batch size, torch threads, and threads that decode ahead (0: in between)."""

    batch: int
    threads: int
    readers: int


class RawModel:
    """The process with the bare model; a context manager.

    Args:
        model: on disk.
        photos: a folder of JPEG files.
        device: `cpu` or `cuda`.
        precision: `fp32` or `fp16`.
    """

    def __init__(self, model: RandomModel, photos: Path, device: str = "cpu", precision: str = "fp32") -> None:
        words = [sys.executable, __file__, str(model.config_file), str(model.checkpoint_file), str(photos)]
        words += ["--device", device, "--precision", precision]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> RawModel:
        return self

    def __exit__(self, *_error: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def best_way(self, images: int) -> Way:
        """Try batch sizes, then decoding beside the model, on so many images each; the fastest."""
        return Way(**self._do("best_way", images=images))

    def seconds_for(self, images: int, way: Way) -> float:
        """Decode and encode so many images."""
        return float(self._do("seconds_for", images=images, way=asdict(way)))

    def direct_calls(self, calls: int) -> list[float]:
        """Seconds of each call that decodes and encodes one image."""
        return list(self._do("direct_calls", calls=calls))

    def seconds_for_texts(self, texts: Sequence[str], batches: int) -> float:
        """Tokenize the texts and encode them in one padded batch, so many times."""
        return float(self._do("seconds_for_texts", texts=list(texts), batches=batches))

    def encode_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`[N, D]` unit vectors by open_clip's own `encode_text`."""
        return _unpack(self._do("encode_texts", texts=list(texts)))

    def encode_images(self, images: int) -> NDArray[np.float32]:
        """`[N, D]` unit vectors of the first photos."""
        return _unpack(self._do("encode_images", images=images))

    def seconds_to_decode(self, images: int) -> float:
        """Decode so many images with one thread per core, without a model."""
        return float(self._do("seconds_to_decode", images=images))

    def seconds_to_forward(self, images: int) -> float:
        """Encode so many images that lie on the device already."""
        return float(self._do("seconds_to_forward", images=images))

    def _do(self, task: str, **arguments: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"task": task, **arguments}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the bare model's process ended; its words are above")
        return json.loads(line)


class _Worker:
    """Holds the model and does the tasks."""

    def __init__(self, model: RandomModel, photos: Path, device: str, precision: str) -> None:
        import open_clip
        import torch

        self._torch = torch
        self._device, self._is_half = device, precision == "fp16"
        self._model = load(model).to(device)
        if self._is_half:
            self._model = self._model.half()
        self._transform = open_clip.image_transform(model.image_size, is_train=False)
        context_length = int(model.config["text_cfg"].get("context_length", 77))
        self._tokenizer = open_clip.SimpleTokenizer(context_length=context_length)
        self._photos = [path.read_bytes() for path in sorted(photos.glob("*.jpg"))]
        self._cores = os.cpu_count() or 1
        self.encode_images(images=4)

    def best_way(self, images: int) -> dict[str, int]:
        cores = self._cores
        serial = [Way(batch, cores, 0) for batch in _BATCHES]
        best = min(serial, key=lambda way: self.seconds_for(images, asdict(way)))
        beside = [Way(best.batch, threads, readers) for threads in {cores, max(1, cores - 1)} for readers in (1, cores)]
        return asdict(min([best, *beside], key=lambda way: self.seconds_for(images, asdict(way))))

    def seconds_for(self, images: int, way: dict[str, int]) -> float:
        self._torch.set_num_threads(way["threads"])
        started = time.perf_counter()
        with ThreadPoolExecutor(way["readers"] or 1) as pool:
            take: Callable[..., Iterator[Any]] = pool.map if way["readers"] else map
            tensors = take(self._read, self._some_photos(images))
            while batch := list(itertools.islice(tensors, way["batch"])):
                self._encode(self._torch.stack(batch))
        return time.perf_counter() - started

    def direct_calls(self, calls: int) -> list[float]:
        self._torch.set_num_threads(self._cores)
        times = []
        for photo in self._some_photos(calls):
            started = time.perf_counter()
            self._encode(self._read(photo)[None])
            times.append(time.perf_counter() - started)
        return times

    def seconds_for_texts(self, texts: list[str], batches: int) -> float:
        self._torch.set_num_threads(self._cores)
        started = time.perf_counter()
        for _ in range(batches):
            self._encode_texts(texts)
        return time.perf_counter() - started

    def encode_texts(self, texts: list[str]) -> dict[str, Any]:
        return _pack(self._encode_texts(texts))

    def encode_images(self, images: int) -> dict[str, Any]:
        return _pack(self._encode(self._torch.stack([self._read(photo) for photo in self._some_photos(images)])))

    def seconds_to_decode(self, images: int) -> float:
        self._torch.set_num_threads(1)
        with ThreadPoolExecutor(self._cores) as pool:
            started = time.perf_counter()
            for _ in pool.map(self._read, self._some_photos(images)):
                pass
            return time.perf_counter() - started

    def seconds_to_forward(self, images: int) -> float:
        side = self._read(self._photos[0]).shape[-1]
        batch = self._torch.rand(_GPU_BATCH, 3, side, side, device=self._device)
        batch = batch.half() if self._is_half else batch
        with self._torch.inference_mode():
            self._model.encode_image(batch).sum().item()
            started = time.perf_counter()
            for _ in range(max(1, images // _GPU_BATCH)):
                features = self._model.encode_image(batch)
            features.sum().item()  # waits for the device
        return (time.perf_counter() - started) * images / (max(1, images // _GPU_BATCH) * _GPU_BATCH)

    def _some_photos(self, count: int) -> list[bytes]:
        return list(itertools.islice(itertools.cycle(self._photos), count))

    def _read(self, photo: bytes) -> Any:
        from PIL import Image

        return self._transform(Image.open(io.BytesIO(photo)))

    def _encode(self, images: Any) -> NDArray[np.float32]:
        images = images.to(self._device)
        with self._torch.inference_mode():
            return self._unit(self._model.encode_image(images.half() if self._is_half else images))

    def _encode_texts(self, texts: list[str]) -> NDArray[np.float32]:
        tokens = self._tokenizer(texts).to(self._device)
        with self._torch.inference_mode():
            return self._unit(self._model.encode_text(tokens))

    def _unit(self, features: Any) -> NDArray[np.float32]:
        features = features.float()
        unit: NDArray[np.float32] = (features / features.norm(dim=-1, keepdim=True)).cpu().numpy()
        return unit


def _pack(vectors: NDArray[np.float32]) -> dict[str, Any]:
    return {"shape": vectors.shape, "data": base64.b64encode(vectors.astype("<f4").tobytes()).decode()}


def _unpack(packed: dict[str, Any]) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(packed["data"]), dtype="<f4").reshape(packed["shape"])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("config", type=Path)
    options.add_argument("checkpoint", type=Path)
    options.add_argument("photos", type=Path)
    options.add_argument("--device", default="cpu")
    options.add_argument("--precision", default="fp32")
    chosen = options.parse_args()
    model = RandomModel(chosen.config, chosen.checkpoint)
    worker = _Worker(model, chosen.photos, chosen.device, chosen.precision)
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(getattr(worker, task.pop("task"))(**task)), flush=True)


if __name__ == "__main__":
    main()
