"""The student as one ONNX file: RGB8 pixels in, logits and calibrated probabilities out, normalisation inside."""

import json
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vl2v_client.core.errors import UsageError
from vl2v_client.core.extras import missing_package
from vl2v_client.core.values import PixelSource
from vl2v_client.export.agreement import Agreement, compare
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard

ONNX_FILE = "student.onnx"
PACKAGES = ("onnx", "onnxruntime", "onnxscript")
MAX_ONNX_BYTES = 2**31  # what one file of protobuf holds
_MAX_WEIGHTS_BYTES = MAX_ONNX_BYTES - 2**26
_BATCH = 64

PREPROCESSING = (
    "RGB, turned as EXIF says, transparency on white; the whole image resized to {size} x {size} pixels without "
    "keeping its proportions, by Pillow's bicubic filter; uint8, channels last. The graph scales and normalises."
)


def check_packages() -> None:
    """Make sure that this format can be written and compared.

    Raises:
        UsageError: A package is missing.
    """
    for name in PACKAGES:
        try:
            import_module(name)
        except ImportError as error:
            raise missing_package(error, "onnx") from error


def write_onnx(folder: Path, bundle: StudentBundle, pixels: PixelSource, wanted: NDArray[np.float64]) -> Agreement:
    """Write `student.onnx`, run it by ONNX Runtime with batches of two sizes, and compare.

    Args:
        folder: Where to write.
        bundle: Student, on the CPU.
        pixels: `[N, S, S, 3]` uint8, views that both are asked about.
        wanted: The student's own probabilities of them, `[N, C]`.

    Raises:
        UsageError: A package is missing, or the student is too large for one file.
        RunError: The graph answers otherwise.
    """
    check_packages()
    size = sum(value.nbytes for value in bundle.classifier.student.state_dict().values())
    if size > _MAX_WEIGHTS_BYTES:
        raise UsageError(f"the student has {size:,} bytes of weights, more than one ONNX file holds: export it as vl2v")
    path = folder / ONNX_FILE
    _export(path, bundle)
    _describe(path, bundle.card)
    return compare(ONNX_FILE, run_onnx(path, pixels), wanted)


def run_onnx(path: Path, pixels: PixelSource) -> NDArray[np.float64]:
    """Return the graph's probabilities `[N, C]`; the first image is a batch of its own."""
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    cuts = [slice(0, 1), *(slice(start, start + _BATCH) for start in range(1, len(pixels), _BATCH))]
    parts = [session.run(["probabilities"], {"pixels": np.ascontiguousarray(pixels[cut])})[0] for cut in cuts]
    return np.concatenate(parts).astype(np.float64)


class _Graph(nn.Module):
    """Maps pixels `[B, S, S, 3]` uint8 to logits and calibrated probabilities, `[B, C]` float32."""

    matrix: Tensor | None
    mean: Tensor
    std: Tensor
    resize: Tensor

    def __init__(self, bundle: StudentBundle) -> None:
        super().__init__()
        card, head, wanted = bundle.card, bundle.classifier.head, bundle.card.student.input
        self.student, self.temperature = bundle.classifier.student, card.temperature
        self.scale, self.offset = (1.0, 0.0) if head is None else (head.logit_scale, head.logit_bias)
        self.register_buffer("matrix", None if head is None else torch.from_numpy(head.matrix))
        self.register_buffer("mean", torch.tensor(wanted.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(wanted.std).view(1, 3, 1, 1))
        self.resizes = card.view_size != wanted.size
        self.register_buffer("resize", _resizing(card.view_size, wanted.size, wanted.interpolation))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        images = pixels.permute(0, 3, 1, 2).to(torch.float32) / 255
        if self.resizes:
            images = (self.resize @ images @ self.resize.T).clamp(0, 1)
        logits = self.student((images - self.mean) / self.std)
        if self.matrix is not None:
            logits = self.scale * functional.normalize(logits, dim=-1) @ self.matrix.T + self.offset
        return logits, (logits / self.temperature).softmax(dim=-1)


def _resizing(size: int, wanted: int, mode: str) -> Tensor:
    """Return `[wanted, size]`, which resizes columns as the student's input is resized: both filters are separable."""
    rows = torch.eye(size)[None, None]
    resized: Tensor = functional.interpolate(rows, (wanted, size), mode=mode, antialias=True)
    return resized[0, 0]


def _export(path: Path, bundle: StudentBundle) -> None:
    size = bundle.card.view_size
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with warnings.catch_warnings(action="ignore"), torch.no_grad():
        torch.onnx.export(
            _Graph(bundle).eval(),
            (example,),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
            input_names=["pixels"],
            output_names=["logits", "probabilities"],
            external_data=False,
            verbose=False,
        )


def _describe(path: Path, card: StudentCard) -> None:
    """Add what a program needs to use the graph: it travels in the one file."""
    import onnx

    model = onnx.load(path)
    facts = {
        "class_names": json.dumps(card.class_names),
        "size": str(card.view_size),
        "preprocessing": PREPROCESSING.format(size=card.view_size),
        "temperature": repr(card.temperature),
        "student_sha256": card.weights_sha256,
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, path)
