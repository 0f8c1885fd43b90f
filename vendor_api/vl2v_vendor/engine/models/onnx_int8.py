"""An open_clip model in int8 on ONNX Runtime, for processors: faster than fp32, and not the same vectors.

Both towers are exported when the model is loaded, and their matrix products quantised: weights once, activations for
each call. What an activation is rounded to depends on everything in the call, so each item runs alone, at its own
length: no vector depends on its neighbours. A text tower that is not open_clip's own causal one stays as it is.
"""

from __future__ import annotations

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from vl2v_vendor.domain.encoder import PixelBatch, TokenBatch, Tokenizer, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.open_clip_files import ModelSpec
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.engine.models.parity import ParityReport, measure_parity

_INPUT = "items"
_QUANTISED_OPERATORS = ["MatMul", "Gemm"]


class OnnxInt8Model:
    """A loaded int8 model. Not thread-safe, as `OpenClipModel`.

    Args:
        exact: The same model in fp32 on the CPU; it is needed for the export only.
        spec: Specification that it was loaded by.

    Raises:
        ModelLoadFailed: The model cannot be exported or quantised.
    """

    def __init__(self, exact: OpenClipModel, spec: ModelSpec) -> None:
        images, texts = exact.towers
        self.info = replace(exact.info, precision="int8")
        self._images = _quantise(images, np.zeros((1, *[exact.info.image_size] * 2, 3), dtype=np.uint8), spec)
        example = np.ones((1, exact.info.context_length // 2), dtype=np.int64)
        self._texts = _quantise(texts, example, spec) if texts.takes_short_text else None
        self._exact_tokens = None if self._texts else exact.encode_tokens

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """Encode N images `[S, S, 3]` of RGB8 to `[N, D]` float32, unit norm."""
        return np.concatenate([_run(self._images, image[None]) for image in pixels])

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """`[N, L]` token ids to `[N, D]` float32, unit norm; one at a time, without its padding."""
        if self._exact_tokens is not None:
            return self._exact_tokens(tokens)
        return np.concatenate([_run(self._texts, np.trim_zeros(row, "b")[None]) for row in tokens])


def check_parity(exact: OpenClipModel, model: OnnxInt8Model, tokenizer: Tokenizer, floor: float) -> ParityReport:
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


def require_packages() -> None:
    """Check that the extra `onnx` is installed, before minutes are spent on a model.

    Raises:
        ModelLoadFailed: Names the package and the command.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ModelLoadFailed(
            f"precision int8 needs the package {error.name}: pip install 'vl2v[onnx]'; or serve fp32"
        ) from error


def _quantise(tower: Any, example: PixelBatch | TokenBatch, spec: ModelSpec) -> Any:
    """Quantise a tower to a session of ONNX Runtime that takes one item."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with tempfile.TemporaryDirectory(prefix="vl2v-int8-") as folder, warnings.catch_warnings(action="ignore"):
        exported, quantised = Path(folder, "fp32.onnx"), Path(folder, "int8.onnx")
        try:
            _export(tower, example, exported)
            quantize_dynamic(
                exported,
                quantised,
                op_types_to_quantize=_QUANTISED_OPERATORS,
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            return _open_session(quantised, spec.threads)
        except Exception as error:
            # Exporter, quantiser and runtime have errors of their own kinds for every layer they do not know.
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            raise ModelLoadFailed(f"{spec.model_id} cannot be made int8 ({reason}); serve fp32") from error


def _export(tower: Any, example: PixelBatch | TokenBatch, path: Path) -> None:
    import torch

    is_text = example.dtype == np.int64
    length = {1: torch.export.Dim("length", min=2, max=tower.context_length)} if is_text else {}
    torch.onnx.export(
        tower,
        (torch.from_numpy(example),),
        path,
        dynamo=True,
        dynamic_shapes=(length,),
        input_names=[_INPUT],
        output_names=["vectors"],
        verbose=False,
    )


def _open_session(path: Path, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _run(session: Any, item: PixelBatch | TokenBatch) -> VectorBatch:
    """`[1, ...]` to `[1, D]`."""
    return cast("VectorBatch", session.run(None, {_INPUT: np.ascontiguousarray(item)})[0])
