"""Golden vectors: what a model once made of fixed inputs, compared whenever it is loaded again.

Weights that fit an architecture are no proof that it is the right one: CLIP with GELU loads the weights of CLIP with
QuickGELU without a word and gives other vectors, and so does a wrong normalisation. The vectors of two images and two
texts tell.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import quote

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from vl2v_contract.vectors import from_base64, to_base64
from vl2v_vendor.domain.encoder import ModelInfo, Tokenizer, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.model_warm_up import LocalModel
from vl2v_vendor.engine.models.parity import PROBE_TEXTS, probe_images
from vl2v_vendor.host.durable_files import write_durably

MIN_COSINE: Final = {"fp32": 0.99999, "fp16": 0.9999, "bf16": 0.9999, "int8": 0.999}
"""By precision, to golden vectors of the same one: processors and library versions change the last digits only."""
MIN_COSINE_ACROSS: Final = {"fp32": 0.9995, "fp16": 0.9995, "bf16": 0.999, "int8": 0.95}
"""By the model's precision, to golden vectors of another one."""

_INPUTS: Final = 2


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
    found = _encode_inputs(model, tokenizer)
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
        _write(path, model.info, found)
        return
    precision = model.info.precision
    floor = (MIN_COSINE if golden.precision == precision else MIN_COSINE_ACROSS)[precision]
    cosines = {name: _cosine(vector, golden, name, path) for name, vector in found.items()}
    name = min(cosines, key=lambda name: cosines[name])
    if not cosines[name] >= floor:
        raise ModelLoadFailed(
            f"{model.info.id} is not the model that it was: the cosine to the golden vector of `{name}` in {path} is "
            f"{cosines[name]:.5f}, below {floor}. {_likely_cause(model.info, golden)} If the change is meant, "
            "delete that file; the next start writes it anew"
        )


def _encode_inputs(model: LocalModel, tokenizer: Tokenizer) -> dict[str, VectorBatch]:
    """Return the `[D]` vector of each golden input, by the input's name."""
    pixels = probe_images(_INPUTS, model.info.image_size)
    found = {f"image {number}": vector for number, vector in enumerate(model.encode_images(pixels))}
    for text in PROBE_TEXTS[:_INPUTS]:
        tokens = np.asarray(tokenizer.tokenize(text, truncate=True).model_input, dtype=np.int64)
        found[text] = model.encode_tokens(tokens[None])[0]
    return found


def _cosine(vector: VectorBatch, golden: GoldenVectors, name: str, path: Path) -> float:
    """0 if the vectors are of different widths."""
    try:
        expected = from_base64(golden.vectors[name], "float16", golden.embedding_dim).astype(np.float64)
    except (KeyError, ValueError):
        raise ModelLoadFailed(f"golden file {path} holds no vector of `{name}`; delete it, or restore it") from None
    if vector.shape != expected.shape:
        return 0.0
    return float(vector.astype(np.float64) @ expected / (np.linalg.norm(expected) * np.linalg.norm(vector)))


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


def _write(path: Path, info: ModelInfo, vectors: dict[str, VectorBatch]) -> None:
    golden = GoldenVectors(
        weights_sha=info.weights_sha,
        preprocessing_id=info.preprocessing_id,
        precision=info.precision,
        embedding_dim=info.embedding_dim,
        vectors={name: to_base64(vector, "float16") for name, vector in vectors.items()},
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, golden.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise ModelLoadFailed(
            f"cannot write golden vectors to {path}: {error.strerror}; name another place as `golden_file`"
        ) from error
