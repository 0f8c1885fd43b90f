"""The local teacher: images and texts to unit vectors, frozen, on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.core.progress import Progress, silent
from vl2v_client.core.values import MAX_IMAGE_SIZE, EmbeddingMatrix, PriceTag, TeacherModel
from vl2v_client.local.origin import LocalModel, load_model
from vl2v_client.local.tower import ImageTower, copy_tower, tower_config

LOCAL_LEDGER = "local"
"""Stands for the ledger of a teacher that nobody is paid for."""

Triple = tuple[float, float, float]
"""A value for red, green and blue."""

_BATCH_SIZE = 128
_FREE = PriceTag(price_id=0, unit_price_micro=0, currency="free")
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class LocalTeacher:
    """An open_clip model as a teacher. What it says of a batch depends on the batch alone, on a CPU to the bit.

    Args:
        wanted: Model, origin and device.

    Attributes:
        facts: What a vendor would say of the model; it costs nothing.
        mean: Mean in the model's own normalisation.
        tower_config: What builds its image tower again.

    Raises:
        UsageError: `open_clip` is not installed or knows no such model, or half precision is asked of a CPU.
        DataError: A file is missing or does not fit.
    """

    def __init__(self, wanted: LocalModel) -> None:
        loaded = load_model(wanted)
        self._device = torch.device(wanted.device)
        self._dtype = _DTYPES.get(wanted.precision)
        if self._dtype is not None and self._device.type != "cuda":
            raise UsageError(f"a local teacher in {wanted.precision} needs a GPU: use fp32")
        self._tokenizer = loaded.tokenizer
        weights_sha = hash_weights(loaded.network.state_dict())
        self._network = loaded.network.eval().requires_grad_(False).to(self._device)
        self._name = wanted.name
        size, self.mean, self.std = _preprocessing(loaded.network, wanted.name)
        self._mean = torch.tensor(self.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.std, device=self._device).view(1, 3, 1, 1)
        self.tower_config = tower_config(loaded.config)
        self.facts = self._describe(wanted, size, weights_sha)

    def encode_images(self, pixels: NDArray[np.uint8], *, progress: Progress = silent) -> EmbeddingMatrix:
        """Return `[N, S, S, 3]` at the teacher's input size to `[N, D]`, in batches.

        Raises:
            DataError: A vector has no direction.
        """
        parts = [np.zeros((0, self.facts.embedding_dim), dtype=np.float32)]
        for start in range(0, len(pixels), _BATCH_SIZE):
            parts.append(self._encode_batch(pixels[start : start + _BATCH_SIZE]))
            progress("local teacher", min(start + _BATCH_SIZE, len(pixels)), len(pixels))
        return np.concatenate(parts)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> EmbeddingMatrix:
        """Return texts to `[N, D]`.

        Raises:
            DataError: A text is longer than the model reads, or a vector has no direction.
        """
        for text in texts:
            self._check_length(text)
        tokens = self._tokenizer(list(texts), context_length=self.facts.context_length).to(self._device)
        with self._autocast():
            return _unit(self._network.encode_text(tokens))

    def image_tower(self) -> ImageTower:
        """Return a copy of its image tower, to be trained.

        Raises:
            UsageError: The tower does not end in a linear projection.
        """
        return copy_tower(self._network.visual, self._name)

    @torch.no_grad()
    def _encode_batch(self, pixels: NDArray[np.uint8]) -> EmbeddingMatrix:
        images = torch.from_numpy(np.array(pixels)).to(self._device).permute(0, 3, 1, 2)
        with self._autocast():
            return _unit(self._network.encode_image((images.float() / 255 - self._mean) / self._std))

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self._dtype is None else torch.autocast(self._device.type, self._dtype)

    def _check_length(self, text: str) -> None:
        """Refuse a text that CLIP's tokenizer would cut; others do not tell, and are trusted."""
        if hasattr(self._tokenizer, "sot_token_id"):
            count = len(self._tokenizer.encode(text)) + 2
            if count > self.facts.context_length:
                raise DataError(
                    f"{text!r} has {count} tokens; the teacher reads {self.facts.context_length}: shorten it"
                )

    def _describe(self, wanted: LocalModel, size: int, weights_sha: str) -> TeacherModel:
        black = np.zeros((1, size, size, 3), dtype=np.uint8)
        network, bias = self._network, getattr(self._network, "logit_bias", None)
        mean, std = (",".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return TeacherModel(
            id=wanted.model if wanted.config_file is None else wanted.name,
            ledger_id=LOCAL_LEDGER,
            embedding_dim=int(self._encode_batch(black).shape[1]),
            image_size=size,
            preprocessing_id=f"local-{size}/mean{mean}/std{std}",
            context_length=int(getattr(network, "context_length", None) or network.text.context_length),
            logit_scale=float(network.logit_scale.exp()),
            logit_bias=0.0 if bias is None else float(bias),
            weights_sha=weights_sha,
            precision=wanted.precision,
            image_price=_FREE,
            text_price=_FREE,
            max_items=_BATCH_SIZE,
            max_request_bytes=0,
        )


def hash_weights(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over (name, dtype, shape, bytes) of every tensor, sorted by name; a vendor does alike."""
    digest = hashlib.sha256(b"vl2v-weights-v1\0")
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _unit(features: Tensor) -> EmbeddingMatrix:
    vectors: EmbeddingMatrix = functional.normalize(features.float(), dim=-1).cpu().numpy()
    if not (np.isfinite(vectors).all() and vectors.any(axis=1).all()):
        raise DataError("the local teacher gave a vector that is zero or not finite: check its weights, or use fp32")
    return vectors


def _preprocessing(network: nn.Module, name: str) -> tuple[int, Triple, Triple]:
    """Return input size, mean and standard deviation, as the model's own configuration says."""
    config = dict(getattr(network.visual, "preprocess_cfg", {}))
    size = config.get("size", getattr(network.visual, "image_size", 224))
    height, width = size if isinstance(size, tuple | list) else (size, size)
    if height != width:
        raise UsageError(f"{name} wants {height} x {width} pixels; a teacher here needs a square input")
    if height > MAX_IMAGE_SIZE:
        raise UsageError(f"{name} wants {height} x {width} pixels; a teacher here reads {MAX_IMAGE_SIZE} at most")
    return int(height), _triple(config["mean"], name), _triple(config["std"], name)


def _triple(values: Sequence[float], name: str) -> Triple:
    try:
        red, green, blue = values
        return float(red), float(green), float(blue)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} has {values!r} for a mean or deviation: it must be three numbers") from error
