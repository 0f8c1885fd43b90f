"""The local teacher: images and texts to unit vectors, frozen, on this machine; and its image tower as a student."""

import copy
import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.core.values import MAX_IMAGE_SIZE, EmbeddingMatrix, PixelSource, PriceTag, TeacherModel
from vl2v_client.local.origin import LocalModel, load_model, open_clip


class ImageTower(NamedTuple):
    """Two modules that are the tower when one follows the other.

    Attributes:
        backbone: `[B, 3, S, S]` to pooled features `[B, F]`.
        projection: To the teacher's width, `[B, F]` to `[B, D]`.
    """

    backbone: nn.Module
    projection: nn.Linear


def tower_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what builds the image tower of a model configuration again, without its weights."""
    vision = {**config["vision_cfg"]}
    if "timm_model_pretrained" in vision:
        vision["timm_model_pretrained"] = False
    return {"embed_dim": config["embed_dim"], "vision_cfg": vision, "quick_gelu": config.get("quick_gelu", False)}


def build_tower(config: Mapping[str, Any]) -> ImageTower:
    """Return a tower with random weights, of what `tower_config` gave.

    Raises:
        UsageError: `open_clip` is not installed.
        DataError: This version of it cannot build such a tower, or the tower does not end in a linear projection.
    """
    library = open_clip()
    smallest = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
    try:
        model = library.CLIP(text_cfg=smallest, **{**config, "vision_cfg": {**config["vision_cfg"]}})
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise DataError(f"open_clip cannot build the student's image tower ({error}): update open_clip") from error
    try:
        return _split(model.visual, "this student")
    except UsageError as error:
        raise DataError(str(error)) from error


@torch.no_grad()
def _split(visual: nn.Module, name: str) -> ImageTower:
    """Take the projection off; the tower itself becomes the backbone."""
    matrix = getattr(visual, "proj", None)
    if isinstance(matrix, nn.Parameter):  # open_clip's transformer ends in `pooled @ proj`
        features, outputs = matrix.shape
        projection = nn.Linear(features, outputs, bias=False)
        projection.weight.copy_(matrix.T)
        cast(Any, visual).proj = None
        return ImageTower(visual, projection)
    head = getattr(visual, "head", None)
    if isinstance(head, nn.Sequential) and isinstance(getattr(head, "proj", None), nn.Linear):  # a timm trunk
        projection = cast(nn.Linear, head.proj)
        head.proj = nn.Identity()
        return ImageTower(visual, projection)
    raise UsageError(
        f"the image tower of {name} does not end in a linear projection, so it cannot be a student: "
        "use a ViT, or a timm tower with a linear projection"
    )


LOCAL_LEDGER = "local"  # stands for the ledger of a teacher that nobody is paid for
Triple = tuple[float, float, float]  # A value for red, green and blue

BATCH_SIZE = 128
_FREE = PriceTag(price_id=0, unit_price_micro=0, currency="free")
_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16}


class LocalTeacher:
    """An open_clip model as a teacher. What it says of a batch depends on the batch alone, on a CPU to the bit.

    Attributes:
        facts: What a vendor would say of the model; it costs nothing.
        mean: Mean in the model's own normalisation.
        tower_config: What builds its image tower again.

    Raises:
        UsageError: `open_clip` is not installed or knows no such model, or half precision is asked of a CPU.
        DataError: A file is missing or does not fit.
    """

    def __init__(self, wanted: LocalModel) -> None:
        network, config, self._tokenizer = load_model(wanted)
        self._device = torch.device(wanted.device)
        self._dtype = _DTYPES.get(wanted.precision)
        if self._dtype is not None and self._device.type != "cuda":
            raise UsageError(f"a local teacher in {wanted.precision} needs a GPU: use fp32")
        weights_sha = hash_weights(network.state_dict())
        self._autocast = partial(torch.autocast, self._device.type, self._dtype, enabled=self._dtype is not None)
        self._network: Any = network.eval().requires_grad_(False).to(self._device)
        self._name = wanted.name
        size, self.mean, self.std = _preprocessing(network, wanted.name)
        self._mean = torch.tensor(self.mean, device=self._device).view(1, 3, 1, 1)
        self._std = torch.tensor(self.std, device=self._device).view(1, 3, 1, 1)
        self.tower_config = tower_config(config)
        self.facts = self._describe(wanted, size, weights_sha)

    def encode_images(self, pixels: PixelSource) -> EmbeddingMatrix:
        """Return `[N, S, S, 3]` at the teacher's input size to `[N, D]`, in batches.

        Raises:
            DataError: A vector has no direction.
        """
        vectors = np.empty((len(pixels), self.facts.embedding_dim), dtype=np.float32)
        for start in range(0, len(pixels), BATCH_SIZE):
            batch = slice(start, min(start + BATCH_SIZE, len(pixels)))
            vectors[batch] = self._encode_batch(pixels[batch])
        return vectors

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> EmbeddingMatrix:
        """Return texts to `[N, D]`.

        Raises:
            DataError: A text is longer than the model reads, or a vector has no direction.
        """
        if hasattr(
            self._tokenizer, "sot_token_id"
        ):  # CLIP's own would cut a long text; others do not tell, and are trusted
            for text in texts:
                count, limit = len(self._tokenizer.encode(text)) + 2, self.facts.context_length
                if count > limit:
                    raise DataError(f"{text!r} has {count} tokens; the teacher reads {limit}: shorten it")
        tokens = self._tokenizer(list(texts), context_length=self.facts.context_length).to(self._device)
        with self._autocast():
            return _unit(self._network.encode_text(tokens))

    def image_tower(self) -> ImageTower:
        """Return a copy of its image tower in fp32 on the CPU, free to be trained.

        Raises:
            UsageError: The tower does not end in a linear projection.
        """
        return _split(copy.deepcopy(self._network.visual).float().cpu().requires_grad_(True), self._name)

    @torch.no_grad()
    def _encode_batch(self, pixels: NDArray[np.uint8]) -> EmbeddingMatrix:
        images = torch.from_numpy(np.array(pixels)).to(self._device).permute(0, 3, 1, 2)
        with self._autocast():
            return _unit(self._network.encode_image((images.float() / 255 - self._mean) / self._std))

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
            max_items=BATCH_SIZE,
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
        red, green, blue = map(float, values)
        return red, green, blue
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} has {values!r} for a mean or deviation: it must be three numbers") from error
