"""From a specification to a model that has proved itself: loaded, compared with fp32 if it is int8, and golden.

An int8 model runs on ONNX Runtime, on processors: faster than fp32, and not the same vectors. Both towers are exported
when the model is loaded, and their matrix products quantised: weights once, activations for each call. What an
activation is rounded to depends on everything in the call, so each item runs alone, at its own length: no vector
depends on its neighbours. A text tower that is not open_clip's own causal one stays as it is.

torch is imported when a model is loaded, not before.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vl2v_vendor.domain.encoder import PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.model_warm_up import LocalModel, first_line
from vl2v_vendor.engine.models.open_clip_files import ModelSpec
from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer
from vl2v_vendor.engine.models.vector_checks import check_golden, check_parity, golden_path, write_parity

if TYPE_CHECKING:
    from vl2v_vendor.engine.models.open_clip_model import OpenClipModel

_INPUT = "items"


def load_model(spec: ModelSpec, *, golden_folder: Path, golden_file: Path | None = None) -> LocalModel:
    """Load a model and check it; picklable, for the model process.

    Args:
        spec: Which model, and how.
        golden_folder: Where each model's golden vectors are kept, and the parity report of an int8 model.
        golden_file: Golden vectors to compare with instead.

    Raises:
        ModelLoadFailed: It cannot be loaded, or is not what it should be.
    """
    from vl2v_vendor.engine.models.open_clip_model import OpenClipModel

    exact, model = load_pair(spec) if spec.precision == "int8" else (None, OpenClipModel(spec))
    tokenizer = OpenClipTokenizer(spec, context_length=model.info.context_length)
    if exact is not None:
        write_parity(golden_folder, model.info, check_parity(exact, model, tokenizer, spec.int8_min_cosine))
    golden = golden_file or golden_path(golden_folder, model.info)
    check_golden(model, tokenizer, golden, is_named=golden_file is not None)
    return model


def load_pair(spec: ModelSpec) -> tuple[LocalModel, LocalModel]:
    """Return the model in fp32 on the CPU, and as specified.

    Raises:
        ModelLoadFailed: Either cannot be loaded.
    """
    from vl2v_vendor.engine.models.open_clip_model import OpenClipModel

    is_int8 = spec.precision == "int8"
    if is_int8 and spec.device not in ("auto", "cpu"):
        raise ModelLoadFailed(f"precision int8 runs on the CPU, not on `{spec.device}`; use fp16 there, or device cpu")
    try:
        for name in ("onnx", "onnxruntime", "onnxscript") if is_int8 else ():
            import_module(name)  # before minutes are spent on a model
    except ImportError as error:
        raise ModelLoadFailed(
            f"precision int8 needs the package {error.name}: pip install onnx onnxruntime onnxscript; or serve fp32"
        ) from error
    exact = OpenClipModel(replace(spec, precision="fp32", device="cpu", compile=False), packed=not is_int8)
    return exact, OnnxInt8Model(exact, spec) if is_int8 else OpenClipModel(spec)


class OnnxInt8Model:
    """A loaded int8 model, exported from the same one in fp32 on the CPU. Not thread-safe, as `OpenClipModel`.

    Raises:
        ModelLoadFailed: The model cannot be exported or quantised.
    """

    def __init__(self, exact: OpenClipModel, spec: ModelSpec) -> None:
        self.info = replace(exact.info, precision="int8")
        self._images = _quantise(exact.images, np.zeros((1, *[exact.info.image_size] * 2, 3), dtype=np.uint8), spec)
        example = np.ones((1, exact.info.context_length // 2), dtype=np.int64)
        self._texts = _quantise(exact.texts, example, spec) if exact.texts.takes_short_text else None
        self._exact_tokens = None if self._texts else exact.encode_tokens

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """Encode N images `[S, S, 3]` of RGB8 to `[N, D]` float32, unit norm."""
        return np.concatenate([_run(self._images, image[None]) for image in pixels])

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """Encode `[N, L]` token ids to `[N, D]` float32, unit norm; one at a time, without its padding."""
        if self._exact_tokens is not None:
            return self._exact_tokens(tokens)
        return np.concatenate([_run(self._texts, np.trim_zeros(row, "b")[None]) for row in tokens])


def _quantise(tower: Any, example: PixelBatch | TokenBatch, spec: ModelSpec) -> Any:
    """Export and quantise a tower to a session of ONNX Runtime that takes one item."""
    import onnxruntime
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    is_text = example.dtype == np.int64
    length = {1: torch.export.Dim("length", min=2, max=tower.context_length)} if is_text else {}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = spec.threads or 0
    options.log_severity_level = 3
    with tempfile.TemporaryDirectory(prefix="vl2v-int8-") as folder, warnings.catch_warnings(action="ignore"):
        exported, quantised = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        try:
            torch.onnx.export(
                tower,
                (torch.from_numpy(example),),
                exported,
                dynamo=True,
                dynamic_shapes=(length,),
                input_names=[_INPUT],
                output_names=["vectors"],
                verbose=False,
            )
            quantize_dynamic(
                exported,
                quantised,
                op_types_to_quantize=["MatMul", "Gemm"],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            return onnxruntime.InferenceSession(quantised, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            # Exporter, quantiser and runtime have errors of their own kinds for every layer they do not know.
            raise ModelLoadFailed(f"{spec.model_id} cannot be made int8 ({first_line(error)}); serve fp32") from error


def _run(session: Any, item: PixelBatch | TokenBatch) -> VectorBatch:
    """`[1, ...]` to `[1, D]`."""
    return cast("VectorBatch", session.run(None, {_INPUT: np.ascontiguousarray(item)})[0])
