"""Any open_clip model as an encoder: a pretrained tag, a local checkpoint, or the packaged tiny teacher.

open_clip and torch are imported when a model is loaded, not before.
"""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np

from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.batching import BatchThreads
from vl2v_vendor.engine.models.open_clip_files import ModelSpec, Precision, build_model
from vl2v_vendor.images.preprocessing import Preprocessing

if TYPE_CHECKING:
    import torch

    from vl2v_vendor.engine.models.open_clip_towers import ImageTower, TextTower

_MAX_REASON_LENGTH: Final = 300
_DEFAULT_PRECISION: Final[dict[str, Precision]] = {"cpu": "fp32", "cuda": "fp16"}


class OpenClipModel:
    """A loaded model. Not thread-safe: one thread, normally of the model process, calls it.

    Args:
        spec: Which model, from where, on which device.
        packed: Lay out the weights for fast products where that can be done; an export needs them as they were.

    Raises:
        ModelLoadFailed: The message names the file or the name, and the remedy.
    """

    def __init__(self, spec: ModelSpec, *, packed: bool = True) -> None:
        import torch

        from vl2v_vendor.engine.models.open_clip_towers import ImageTower, TextTower
        from vl2v_vendor.engine.models.packed_weights import pack_weights

        self._device = _choose_device(spec.device)
        self._precision = spec.precision or _DEFAULT_PRECISION.get(self._device.type, "fp32")
        if spec.threads:
            torch.set_num_threads(spec.threads)
        model = build_model(spec)
        weights_sha = hash_weights(model.state_dict())
        model = model.eval().requires_grad_(False)
        preprocessing = _preprocessing_of(model, spec)
        context_length = _context_length(model)
        self._images: Any = ImageTower(model, preprocessing).eval().to(self._device)
        self._texts: Any = TextTower(model, context_length).eval().to(self._device)
        self._dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[self._precision]
        if spec.compile:
            self._images = torch.compile(self._images, dynamic=True)
        shares = self._device.type == "cpu" and not spec.compile  # one compiled graph serves one thread
        self._threads = BatchThreads(torch.get_num_threads() if shares else 1)
        self.info = self._describe(model, spec.model_id, preprocessing, weights_sha)
        if packed and shares and self._precision == "fp32":
            pack_weights(model, self._probe_both)

    @property
    def towers(self) -> tuple[ImageTower, TextTower]:
        """The image and the text tower, for an export."""
        return self._images, self._texts

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """Encode N images `[S, S, 3]` of RGB8 to `[N, D]` float32, unit norm."""
        return self._encode(self._images, pixels)

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """`[N, L]` token ids, `L` up to the context length, to `[N, D]` float32, unit norm."""
        return self._encode(self._texts, tokens)

    def _encode(self, tower: Any, batch: PixelBatch | TokenBatch) -> VectorBatch:
        import torch

        def encode(part: PixelBatch | TokenBatch) -> VectorBatch:
            with torch.inference_mode(), self._autocast():
                return cast("VectorBatch", tower(self._to_device(torch.from_numpy(part))).cpu().numpy())

        return self._threads.encode(encode, batch)

    def _to_device(self, batch: torch.Tensor) -> torch.Tensor:
        if self._device.type != "cuda":
            return batch.to(self._device)
        return batch.pin_memory().to(self._device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._dtype)

    def _describe(self, model: Any, model_id: str, preprocessing: Preprocessing, weights_sha: str) -> ModelInfo:
        bias = getattr(model, "logit_bias", None)
        return ModelInfo(
            id=model_id,
            embedding_dim=self._probe(model_id, preprocessing.size),
            image_size=preprocessing.size,
            image_mean=preprocessing.mean,
            image_std=preprocessing.std,
            preprocessing_id=preprocessing.id,
            context_length=self._texts.context_length,
            logit_scale=float(model.logit_scale.exp()),
            logit_bias=0.0 if bias is None else float(bias),
            weights_sha=weights_sha,
            precision=self._precision,
            device=str(self._device),
            resize_mode=preprocessing.resize_mode,
            interpolation=preprocessing.interpolation,
        )

    def _probe(self, model_id: str, size: int) -> int:
        """Return the width of the vectors, found by encoding one black image: no two towers name it alike."""
        try:
            return int(self.encode_images(np.zeros((1, size, size, 3), dtype=np.uint8)).shape[1])
        except Exception as error:
            # Compilers, drivers and devices fail in many ways at the first batch; the operator needs one sentence.
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:_MAX_REASON_LENGTH]
            raise ModelLoadFailed(
                f"{model_id} cannot encode an image as {self._precision} on {self._device}: {reason}"
            ) from error

    def _probe_both(self) -> VectorBatch:
        """Encode noise with both towers, `[2, D]`."""
        size, length = self.info.image_size, self.info.context_length
        noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
        return np.concatenate([self.encode_images(noise), self.encode_tokens(np.ones((1, length), dtype=np.int64))])


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
    """Return the model's own preprocessing, overridden by what the operator configured."""
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
        policy=spec.policy,
    )


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = values
    return float(red), float(green), float(blue)


def _context_length(model: Any) -> int:
    return int(getattr(model, "context_length", None) or model.text.context_length)
