"""Any open_clip model as an encoder: a pretrained tag, a local checkpoint, or the packaged tiny teacher.

torch is imported with this module; import it only where a model is loaded.
"""

import hashlib
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import nullcontext
from functools import partial
from typing import Any, Final, cast

import numpy as np
import torch

from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.model_warm_up import first_line, make_noise
from vl2v_vendor.engine.models.open_clip_files import ModelSpec, Precision, build_model
from vl2v_vendor.engine.models.packed_weights import pack_weights
from vl2v_vendor.images.preprocessing import Preprocessing

_DEFAULT_PRECISION: Final[dict[str, Precision]] = {"cpu": "fp32", "cuda": "fp16"}
_AUTOCAST_DTYPES: Final = {"fp16": torch.float16, "bf16": torch.bfloat16}
_FEWEST_ITEMS: Final = 2
"""In a part of a batch: below that a core alone is no faster than all cores are together."""


class OpenClipModel:
    """A loaded model. Not thread-safe: one thread, normally of the model process, calls it.

    Args:
        spec: Which model, from where, on which device.
        packed: Lay out the weights for fast products where that can be done; an export needs them as they were.

    Raises:
        ModelLoadFailed: The message names the file or the name, and the remedy.
    """

    def __init__(self, spec: ModelSpec, *, packed: bool = True) -> None:
        self._device = _choose_device(spec.device)
        precision = spec.precision or _DEFAULT_PRECISION.get(self._device.type, "fp32")
        if spec.threads:
            torch.set_num_threads(spec.threads)
        model = build_model(spec)
        weights_sha = hash_weights(model.state_dict())
        model = model.eval().requires_grad_(False)
        preprocessing = _preprocessing_of(model, spec)
        self.images: Any = ImageTower(model, preprocessing).eval().to(self._device)
        self.texts = TextTower(model).eval().to(self._device)
        self._autocast_dtype = _AUTOCAST_DTYPES.get(precision)
        if spec.compile:
            self.images = torch.compile(self.images, dynamic=True)
        shares = self._device.type == "cpu" and not spec.compile  # one compiled graph serves one thread
        self._threads = BatchThreads(torch.get_num_threads() if shares else 1)
        self.info = ModelInfo(
            id=spec.model_id,
            embedding_dim=self._probe(f"{spec.model_id} cannot encode an image as {precision}", preprocessing.size),
            image_size=preprocessing.size,
            image_mean=preprocessing.mean,
            image_std=preprocessing.std,
            preprocessing_id=preprocessing.id,
            context_length=self.texts.context_length,
            logit_scale=float(model.logit_scale.exp()),
            logit_bias=float(getattr(model, "logit_bias", None) or 0.0),
            weights_sha=weights_sha,
            precision=precision,
            device=str(self._device),
            resize_mode=preprocessing.resize_mode,
            interpolation=preprocessing.interpolation,
        )
        if packed and shares and precision == "fp32":
            pack_weights(model, self._probe_both)

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """Encode N images `[S, S, 3]` of RGB8 to `[N, D]` float32, unit norm."""
        return self._encode(self.images, pixels)

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """Encode `[N, L]` token ids, `L` up to the context length, to `[N, D]` float32, unit norm."""
        return self._encode(self.texts, tokens)

    def _encode(self, tower: Any, batch: PixelBatch | TokenBatch) -> VectorBatch:
        def encode(part: PixelBatch | TokenBatch) -> VectorBatch:
            dtype, inputs = self._autocast_dtype, torch.from_numpy(part)
            autocast = torch.autocast(self._device.type, dtype) if dtype else nullcontext()
            if is_cuda := self._device.type == "cuda":
                inputs = inputs.pin_memory()
            with torch.inference_mode(), autocast:
                return cast("VectorBatch", tower(inputs.to(self._device, non_blocking=is_cuda)).cpu().numpy())

        return self._threads.encode(encode, batch)

    def _probe(self, failure: str, size: int) -> int:
        """Return the width of the vectors, found by encoding one black image: no two towers name it alike."""
        try:
            return int(self.encode_images(np.zeros((1, size, size, 3), dtype=np.uint8)).shape[1])
        except Exception as error:
            # Compilers, drivers and devices fail in many ways at the first batch; the operator needs one sentence.
            raise ModelLoadFailed(f"{failure} on {self._device}: {first_line(error)}") from error

    def _probe_both(self) -> VectorBatch:
        """Encode noise with both towers, `[2, D]`."""
        tokens = np.ones((1, self.info.context_length), dtype=np.int64)
        return np.concatenate([self.encode_images(make_noise(self.info, 1)), self.encode_tokens(tokens)])


class BatchThreads:
    """As many threads as torch has, each of which computes alone and encodes a part of a batch.

    Threads that share an operation wait for each other after every one of some hundreds in a forward pass, and
    if one of them loses its core for a moment, all do. Parts wait once. With one thread nothing is ever split.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        # Torch counts threads for each thread that calls it.
        self._pool = ThreadPoolExecutor(threads, "model-part", initializer=partial(torch.set_num_threads, 1))

    def encode(
        self, encode: Callable[[PixelBatch | TokenBatch], VectorBatch], batch: PixelBatch | TokenBatch
    ) -> VectorBatch:
        """Encode `[N, ...]` to `[N, D]`, in parts if they are large enough; no part is left running by an error."""
        if self._threads == 1 or len(batch) < self._threads * _FEWEST_ITEMS:
            return encode(batch)
        items = math.ceil(len(batch) / self._threads)
        parts = [self._pool.submit(encode, batch[first : first + items]) for first in range(0, len(batch), items)]
        wait(parts)
        return np.concatenate([part.result() for part in parts])


class ImageTower(torch.nn.Module):
    """`[N, S, S, 3]` uint8 pixels to `[N, D]` float32 unit vectors, in one call."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, model: Any, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        for name, values in (("mean", preprocessing.mean), ("std", preprocessing.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalise, encode, scale to unit length."""
        normalised = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std  # [N, 3, S, S]
        return _to_unit_vectors(self.model.encode_image(normalised))


class TextTower(torch.nn.Module):
    """`[N, L]` token ids to `[N, D]` float32 unit vectors, `L` up to the context length.

    CLIP's text attention is causal and the vector is read at the end-of-text token, so nothing after that token can
    change it. open_clip's `encode_text` nevertheless computes all 77 positions. Where the model is such a one, a batch
    shorter than the context runs at its own length.
    """

    def __init__(self, model: Any) -> None:
        from open_clip import CLIP

        super().__init__()
        self.model = model
        self.context_length = int(getattr(model, "context_length", None) or model.text.context_length)
        is_causal = type(model) is CLIP and model.attn_mask is not None
        self.takes_short_text = is_causal and model.text_pool_type in ("argmax", "eos")

    def forward(self, token_ids: torch.Tensor) -> torch.Tensor:
        """Encode, scale to unit length."""
        if self.takes_short_text:
            return _to_unit_vectors(self._encode_short(token_ids))
        missing = self.context_length - token_ids.shape[1]
        return _to_unit_vectors(self.model.encode_text(torch.nn.functional.pad(token_ids, (0, missing))))

    def _encode_short(self, token_ids: torch.Tensor) -> Any:
        """Return `[N, D]`, not normalised; as open_clip's `encode_text` with L for the context."""
        from open_clip.transformer import text_global_pool

        model, length, dtype = self.model, token_ids.shape[1], self.model.transformer.get_cast_dtype()
        hidden = model.token_embedding(token_ids).to(dtype) + model.positional_embedding[:length].to(dtype)  # [N, L, W]
        hidden = model.ln_final(model.transformer(hidden, attn_mask=model.attn_mask[:length, :length]))
        end_of_text = getattr(model, "text_eos_id", None)
        pooled = text_global_pool(hidden, token_ids, model.text_pool_type, eos_token_id=end_of_text)  # [N, W]
        if (projection := model.text_projection) is None:
            return pooled
        return projection(pooled) if callable(projection) else pooled @ projection


def _to_unit_vectors(features: torch.Tensor) -> torch.Tensor:
    """`[N, D]` of any precision to unit-norm float32; normalised after the cast. 0 / 0 is NaN, which is never sold."""
    features = features.float()
    return cast("torch.Tensor", features / features.norm(dim=-1, keepdim=True))


def hash_weights(state_dict: dict[str, torch.Tensor]) -> str:
    """Hash (name, dtype, shape, bytes) of every tensor, sorted by name, by SHA-256 to 64 hex digits.

    The loaded state is hashed, before any cast, so the same weights in another file format have the same hash.
    """
    digest = hashlib.sha256(b"vl2v-weights-v1\0")
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _choose_device(name: str) -> torch.device:
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
    red, green, blue = map(float, values)
    return red, green, blue
