"""What a loaded model says of fixed inputs, compared with fp32 and with what it once said.

Parity is what a precision costs: the cosines of its vectors to the fp32 vectors of the same weights.

Golden vectors are what a model once made of two images and two texts, compared whenever it is loaded again. Weights
that fit an architecture are no proof that it is the right one: CLIP with GELU loads the weights of CLIP with QuickGELU
without a word and gives other vectors, and so does a wrong normalisation.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from vl2v_contract.vectors import from_base64, to_base64
from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, Tokenizer, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.model_warm_up import LocalModel
from vl2v_vendor.host import durable_file

_MIN_COSINE: Final = {"fp32": 0.99999, "fp16": 0.9999, "bf16": 0.9999, "int8": 0.999}
"""By precision, to golden vectors of the same one: processors and library versions change the last digits only."""
_MIN_COSINE_ACROSS: Final = {"fp32": 0.9995, "fp16": 0.9995, "bf16": 0.999, "int8": 0.95}
"""By the model's precision, to golden vectors of another one."""

_PARITY_IMAGES, _GOLDEN_INPUTS = 16, 2

PROBE_TEXTS: Final = (
    "a photo of a dog", "an ink drawing of a lighthouse at night",
    "a red bicycle leaning against a brick wall", "two children building a sand castle",
    "a bowl of ripe cherries", "the corner of an empty room with one window", "a blurry photo of a train",
    "a map of an island", "snow", "a cat asleep on a pile of newspapers", "a blueprint of a bridge",
    "an old man playing chess in the park", "a close-up of a green leaf with drops of water",
    "a cartoon of a smiling sun", "a crowded market street seen from above", "a handwritten letter",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ParityReport:
    """How close one precision comes to fp32.

    Attributes:
        image_cosines: Cosine of each image's vector to its fp32 vector.
        text_cosines: Cosine of each text's vector to its fp32 vector.
        same_nearest_text: The share of images that both precisions find nearest to the same text.
    """

    model_id: str
    precision: str
    image_cosines: tuple[float, ...]
    text_cosines: tuple[float, ...]
    same_nearest_text: float
    lowest: float


def measure_parity(
    exact: LocalModel, model: LocalModel, tokenizer: Tokenizer, pixels: PixelBatch | None = None
) -> ParityReport:
    """Encode the same inputs with both models: `pixels` `[N, S, S, 3]`, or the built-in images, and texts."""
    if pixels is None:
        pixels = probe_images(_PARITY_IMAGES, exact.info.image_size)
    exact_images, images = exact.encode_images(pixels), model.encode_images(pixels)
    exact_texts, texts = _encode_texts(exact, tokenizer), _encode_texts(model, tokenizer)
    nearest = (exact_images @ exact_texts.T).argmax(axis=1) == (images @ texts.T).argmax(axis=1)
    of_images, of_texts = _cosines(exact_images, images).round(7), _cosines(exact_texts, texts).round(7)
    return ParityReport(
        model_id=model.info.id,
        precision=model.info.precision,
        image_cosines=tuple(of_images.tolist()),
        text_cosines=tuple(of_texts.tolist()),
        same_nearest_text=float(nearest.mean()),
        lowest=min(*of_images.tolist(), *of_texts.tolist()),
    )


def check_parity(exact: LocalModel, model: LocalModel, tokenizer: Tokenizer, floor: float) -> ParityReport:
    """Measure an int8 model against its fp32 original.

    Raises:
        ModelLoadFailed: A vector is further from its original than `floor` allows.
    """
    report = measure_parity(exact, model, tokenizer)
    if not report.lowest >= floor:
        raise ModelLoadFailed(
            f"{report.model_id} in int8 is not sold: the lowest cosine to fp32 is {report.lowest:.4f} and at least "
            f"{floor} is asked for (int8_min_cosine); serve fp32, or look at `vl2v-vendor parity`"
        )
    return report


def write_parity(folder: Path, info: ModelInfo, report: ParityReport) -> None:
    """Keep the parity report of an int8 model beside its golden vectors; raises ModelLoadFailed as `check_golden`."""
    _write(
        golden_path(folder, info).with_suffix(".parity.json"), json.dumps(asdict(report), indent=2), "the parity report"
    )


def read_parity(folder: Path, info: ModelInfo) -> str:
    """Return the parity report that was kept when an int8 model was loaded, in one line for the operator."""
    path = golden_path(folder, info).with_suffix(".parity.json")
    return f"cosine to fp32 at least {json.loads(path.read_text())['lowest']:.4f} on built-in images and texts, {path}"


def _encode_texts(model: LocalModel, tokenizer: Tokenizer, texts: Sequence[str] = PROBE_TEXTS) -> VectorBatch:
    """`[N, D]`, each text at its own length."""
    rows = [np.asarray(tokenizer.tokenize(text, truncate=True).model_input, dtype=np.int64) for text in texts]
    return np.concatenate([model.encode_tokens(row[None]) for row in rows])


def _cosines(exact: NDArray[Any], found: VectorBatch) -> NDArray[np.float64]:
    """`[N, D]` and `[N, D]` to `[N]`."""
    one, other = exact.astype(np.float64), found.astype(np.float64)
    cosines: NDArray[np.float64] = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    return cosines


def probe_images(count: int, size: int) -> PixelBatch:
    """Return `[count, size, size, 3]` RGB8: coloured gradients with a disc, stripes and grain, no two alike."""
    return np.stack([_probe_image(number, size) for number in range(count)])


def _probe_image(number: int, size: int) -> NDArray[np.uint8]:
    seed = np.frombuffer(hashlib.shake_256(f"vl2v-probe-{number}".encode()).digest(16), dtype=np.uint8).astype(np.int64)
    steps = np.arange(size, dtype=np.int64)
    ramp = steps * 255 // max(1, size - 1)
    image = (ramp[None, :, None] * seed[0:3] + ramp[:, None, None] * seed[3:6]) // 510
    centre_x, centre_y, radius = seed[6] * size // 256, seed[7] * size // 256, size * (2 + seed[8] % 4) // 12
    disc = (steps[None, :] - centre_x) ** 2 + (steps[:, None] - centre_y) ** 2 < radius**2
    image[disc] = seed[9:12]
    stripes = (steps * (3 + seed[12] % 8) // size) % 2 == 1
    image[:, stripes] = 255 - image[:, stripes] if seed[13] % 2 else image[:, stripes] // 2
    grain = np.frombuffer(hashlib.shake_256(seed.tobytes()).digest(size * size * 3), dtype=np.uint8)
    return (image * 7 // 8 + grain.reshape(size, size, 3) // 8).astype(np.uint8)


class GoldenVectors(BaseModel):
    """A golden file. The vectors are float16 in base64, images first, each by the name of its input."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    weights_sha: str
    preprocessing_id: str
    precision: str
    embedding_dim: int
    vectors: dict[str, str]


def golden_path(folder: Path, info: ModelInfo) -> Path:
    """Return where a model's golden vectors are kept, by name and precision."""
    return folder / f"{quote(info.id, safe='')}-{info.precision}.json"


def check_golden(model: LocalModel, tokenizer: Tokenizer, path: Path, *, is_named: bool = False) -> None:
    """Compare a loaded model with the golden file; without a file, write it, unless somebody named it.

    Raises:
        ModelLoadFailed: The vectors differ, naming the likely causes; or the file cannot be read or written.
    """
    texts = PROBE_TEXTS[:_GOLDEN_INPUTS]
    images = model.encode_images(probe_images(_GOLDEN_INPUTS, model.info.image_size))
    found = {f"image {number}": vector for number, vector in enumerate(images)}
    found |= zip(texts, _encode_texts(model, tokenizer, texts), strict=True)
    golden = _read(path)
    if golden is None:
        if is_named:
            raise ModelLoadFailed(f"there is no golden file {path}, which the settings name: correct `golden_file`")
        broken = next((name for name, vector in found.items() if not np.isfinite(vector).all()), None)
        if broken is not None:
            raise ModelLoadFailed(
                f"{model.info.id} makes a vector of `{broken}` that is not finite: check its weights, precision and "
                "`image_std`"
            )
        golden = GoldenVectors(
            weights_sha=model.info.weights_sha,
            preprocessing_id=model.info.preprocessing_id,
            precision=model.info.precision,
            embedding_dim=model.info.embedding_dim,
            vectors={name: to_base64(vector, "float16") for name, vector in found.items()},
        )
        _write(path, golden.model_dump_json(indent=2), "golden vectors", "; name another place as `golden_file`")
        return
    precision = model.info.precision
    floor = (_MIN_COSINE if golden.precision == precision else _MIN_COSINE_ACROSS)[precision]
    cosines = {name: _cosine(vector, golden, name, path) for name, vector in found.items()}
    name = min(cosines, key=cosines.__getitem__)
    if not cosines[name] >= floor:
        raise ModelLoadFailed(
            f"{model.info.id} is not the model that it was: the cosine to the golden vector of `{name}` in {path} is "
            f"{cosines[name]:.5f}, below {floor}. {_likely_cause(model.info, golden)} If the change is meant, "
            "delete that file; the next start writes it anew"
        )


def _cosine(vector: VectorBatch, golden: GoldenVectors, name: str, path: Path) -> float:
    """Return 0 if the vectors are of different widths."""
    try:
        expected = from_base64(golden.vectors[name], "float16", golden.embedding_dim)
    except (KeyError, ValueError):
        raise ModelLoadFailed(f"golden file {path} holds no vector of `{name}`; delete it, or restore it") from None
    return float(_cosines(expected[None], vector[None])[0]) if vector.shape == expected.shape else 0.0


def _likely_cause(info: ModelInfo, golden: GoldenVectors) -> str:
    if info.weights_sha != golden.weights_sha:
        return f"The weights are others ({info.weights_sha[:12]}, golden {golden.weights_sha[:12]})."
    if info.preprocessing_id != golden.preprocessing_id:
        return f"The preprocessing changed from {golden.preprocessing_id} to {info.preprocessing_id}."
    return (
        "The weights are the same, so the architecture is another one: most likely QuickGELU, which OpenAI's weights "
        'need (an architecture named `...-quickgelu`, or `"quick_gelu": true` in the model configuration); or another '
        "version of open_clip or of the tokenizer."
    )


def _read(path: Path) -> GoldenVectors | None:
    try:
        return GoldenVectors.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelLoadFailed(f"cannot read golden file {path}: {error.strerror}") from error
    except ValidationError:
        raise ModelLoadFailed(f"{path} is no golden file; delete it, or restore it") from None


def _write(path: Path, text: str, what: str, remedy: str = "") -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with durable_file(path) as file:
            file.write(f"{text}\n")
    except OSError as error:
        raise ModelLoadFailed(f"cannot write {what} to {path}: {error.strerror}{remedy}") from error
