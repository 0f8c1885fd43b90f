"""From a specification to a model that has proved itself: loaded, compared with fp32 if it is int8, and golden."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from vl2v_vendor.domain.encoder import ModelInfo
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.golden import check_golden, golden_path
from vl2v_vendor.engine.models.model_warm_up import LocalModel
from vl2v_vendor.engine.models.onnx_int8 import OnnxInt8Model, check_parity, require_packages
from vl2v_vendor.engine.models.open_clip_files import ModelSpec
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer


def load_model(spec: ModelSpec, *, golden_folder: Path, golden_file: Path | None = None) -> LocalModel:
    """Load a model and check it; picklable, for the model process.

    Args:
        spec: Which model, and how.
        golden_folder: Where each model's golden vectors are kept, and the parity report of an int8 model.
        golden_file: Golden vectors to compare with instead.

    Raises:
        ModelLoadFailed: It cannot be loaded, or is not what it should be.
    """
    model: LocalModel
    if spec.precision == "int8":
        exact, model = _load_int8(spec)
        tokenizer = OpenClipTokenizer(spec, context_length=model.info.context_length)
        report = check_parity(exact, model, tokenizer, spec.int8_min_cosine)
        _write_report(_parity_path(golden_folder, model.info), report.as_dict())
    else:
        model = OpenClipModel(spec)
        tokenizer = OpenClipTokenizer(spec, context_length=model.info.context_length)
    file = golden_file or golden_path(golden_folder, model.info)
    check_golden(model, tokenizer, file, is_named=golden_file is not None)
    return model


def load_pair(spec: ModelSpec) -> tuple[LocalModel, LocalModel]:
    """Return the model in fp32 on the CPU, and as specified.

    Raises:
        ModelLoadFailed: Either cannot be loaded.
    """
    if spec.precision == "int8":
        return _load_int8(spec)
    return OpenClipModel(_exact(spec)), OpenClipModel(spec)


def _load_int8(spec: ModelSpec) -> tuple[OpenClipModel, OnnxInt8Model]:
    if spec.device not in ("auto", "cpu"):
        raise ModelLoadFailed(f"precision int8 runs on the CPU, not on `{spec.device}`; use fp16 there, or device cpu")
    require_packages()
    exact = OpenClipModel(_exact(spec), packed=False)
    return exact, OnnxInt8Model(exact, spec)


def _exact(spec: ModelSpec) -> ModelSpec:
    return replace(spec, precision="fp32", device="cpu", compile=False)


def read_parity(folder: Path, info: ModelInfo) -> str:
    """Return the parity report that was kept when an int8 model was loaded, in one line for the operator."""
    path = _parity_path(folder, info)
    report = json.loads(path.read_text())
    return f"cosine to fp32 at least {report['lowest']:.4f} on built-in images and texts, {path}"


def _parity_path(folder: Path, info: ModelInfo) -> Path:
    return golden_path(folder, info).with_suffix(".parity.json")


def _write_report(path: Path, report: dict[str, object]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise ModelLoadFailed(f"cannot write the parity report to {path}: {error.strerror}") from error
