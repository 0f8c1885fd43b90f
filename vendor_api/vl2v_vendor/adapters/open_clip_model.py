"""Any open_clip model as an encoder: a pretrained tag, a local checkpoint, or the packaged tiny teacher.

open_clip and torch are imported when a model is loaded, not before.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from vl2v_vendor.adapters.open_clip_files import ModelSpec, Precision, build_model
from vl2v_vendor.adapters.preprocessing import Preprocessing
from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed

if TYPE_CHECKING:
    import torch

_DEFAULT_PRECISION: Final[dict[str, Precision]] = {"cpu": "fp32", "cuda": "fp16"}


class OpenClipModel:
    """A loaded model. Not thread-safe: one thread, normally of the model process, calls it.

    Args:
        spec: which model, from where, on which device.

    Raises:
        ModelLoadFailed: the message names the file or the name, and the remedy.
    """

    def __init__(self, spec: ModelSpec) -> None:
        import torch

        self._device = _choose_device(spec.device)
        self._precision = spec.precision or _DEFAULT_PRECISION.get(self._device.type, "fp32")
        if spec.threads:
            torch.set_num_threads(spec.threads)
        model = build_model(spec)
        weights_sha = hash_weights(model.state_dict())
        self._model = model.eval().requires_grad_(False).to(self._device)
        preprocessing = _preprocessing_of(model, spec)
        self._mean = torch.tensor(preprocessing.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=self._device).view(1, 3, 1, 1)
        self._dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self._precision]
        self._context_length = _context_length(model)
        self.info = self._describe(spec.model_id, preprocessing, weights_sha)

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """`[N, S, S, 3]` uint8 to `[N, D]` float32, unit norm; a vector without direction becomes NaN."""
        import torch

        with torch.inference_mode(), self._autocast():
            images = self._to_device(torch.from_numpy(pixels)).permute(0, 3, 1, 2)
            normalised = (images.float() / 255 - self._mean) / self._std  # [N, 3, S, S]
            return _to_unit_vectors(self._model.encode_image(normalised))

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """`[N, L]` token ids, `L` up to the context length, to `[N, D]` float32, unit norm.

        Where the model allows it, a batch shorter than the context runs at its own length.
        """
        import torch

        from vl2v_vendor.adapters.open_clip_text import encode_short_text, takes_short_text

        with torch.inference_mode(), self._autocast():
            token_ids = self._to_device(torch.from_numpy(tokens))
            missing = self._context_length - token_ids.shape[1]
            if missing > 0 and takes_short_text(self._model):
                return _to_unit_vectors(encode_short_text(self._model, token_ids))
            padded = torch.nn.functional.pad(token_ids, (0, max(missing, 0)))
            return _to_unit_vectors(self._model.encode_text(padded))

    def _to_device(self, batch: torch.Tensor) -> torch.Tensor:
        if self._device.type != "cuda":
            return batch.to(self._device)
        return batch.pin_memory().to(self._device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _describe(self, model_id: str, preprocessing: Preprocessing, weights_sha: str) -> ModelInfo:
        bias = getattr(self._model, "logit_bias", None)
        return ModelInfo(
            id=model_id,
            embedding_dim=self._probe_dimension(preprocessing.size),
            image_size=preprocessing.size,
            image_mean=preprocessing.mean,
            image_std=preprocessing.std,
            preprocessing_id=preprocessing.id,
            context_length=self._context_length,
            logit_scale=float(self._model.logit_scale.exp()),
            logit_bias=0.0 if bias is None else float(bias),
            weights_sha=weights_sha,
            precision=self._precision,
            device=str(self._device),
            resize_mode=preprocessing.resize_mode,
            interpolation=preprocessing.interpolation,
        )

    def _probe_dimension(self, size: int) -> int:
        """The width of the vectors, found by encoding one black image: no two towers name it alike."""
        return int(self.encode_images(np.zeros((1, size, size, 3), dtype=np.uint8)).shape[1])


def hash_weights(state_dict: dict[str, torch.Tensor]) -> str:
    """SHA-256 over (name, dtype, shape, bytes) of every tensor, sorted by name; 64 hex digits.

    The loaded state is hashed, before any cast, so the same weights in another file format have the same hash.
    """
    import torch

    digest = hashlib.sha256(b"vl2v-weights-v1\0")
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _to_unit_vectors(features: torch.Tensor) -> VectorBatch:
    """`[N, D]` of any precision to unit-norm float32; normalised after the cast. 0 / 0 is NaN, which is never sold."""
    features = features.float()
    unit = features / features.norm(dim=-1, keepdim=True)
    return cast("VectorBatch", unit.cpu().numpy())


def _choose_device(name: str) -> torch.device:
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelLoadFailed(f"unknown device `{name}`; use auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelLoadFailed(f"device `{name}` is not available here; use --device cpu, or auto")
    return device


def _preprocessing_of(model: Any, spec: ModelSpec) -> Preprocessing:
    """The model's own preprocessing, overridden by what the operator configured."""
    config: dict[str, Any] = dict(getattr(model.visual, "preprocess_cfg", {}))
    size = config.get("size", getattr(model.visual, "image_size", 224))
    height, width = size if isinstance(size, tuple | list) else (size, size)
    resize_mode = config.get("resize_mode", "shortest")
    if height != width or resize_mode not in ("shortest", "squash"):
        raise ModelLoadFailed(
            f"{spec.model_id} wants {height} x {width} input with resize mode `{resize_mode}`; "
            "only square input with `shortest` or `squash` is served"
        )
    return Preprocessing(
        size=int(height),
        mean=spec.image_mean or _triple(config["mean"]),
        std=spec.image_std or _triple(config["std"]),
        interpolation=spec.interpolation or ("bilinear" if config.get("interpolation") == "bilinear" else "bicubic"),
        resize_mode=resize_mode,
    )


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _context_length(model: Any) -> int:
    return int(getattr(model, "context_length", None) or model.text.context_length)
