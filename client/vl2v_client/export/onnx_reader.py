"""The student in what `export` wrote as ONNX, by ONNX Runtime on the CPU.

The graph runs as it is: nothing here can say what a stranger's graph computes.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from vl2v_client.core.extras import missing_package
from vl2v_client.core.files import open_regular
from vl2v_client.core.values import MAX_IMAGE_SIZE, PixelSource
from vl2v_client.data.folder import ClassNames
from vl2v_client.export.onnx_format import MAX_ONNX_BYTES
from vl2v_client.export.weights import refused

_BATCH = 64


@dataclass(frozen=True)
class OnnxStudent:
    """A graph that `write_onnx` made; what `evaluation.image_predictions.ImageClassifier` wants.

    Attributes:
        path: Its file.
        session: ONNX Runtime's session.
        class_names: Names of the `C` classes.
        view_size: Images are rendered at this size.
        temperature: Probabilities are `softmax(logits / temperature)`.
    """

    path: Path
    session: Any
    class_names: tuple[str, ...]
    view_size: int
    temperature: float

    @property
    def largest_size(self) -> int:
        """Size of an image where it takes the most memory."""
        return self.view_size

    def logits(self, pixels: PixelSource) -> NDArray[np.float32]:
        """Return logits `[N, C]` of views `[N, S, S, 3]` uint8.

        Raises:
            DataError: The graph cannot answer.
        """
        with refused(f"{self.path} does not answer"):
            starts = range(0, len(pixels), _BATCH)
            inputs = [{"pixels": np.ascontiguousarray(pixels[start : start + _BATCH])} for start in starts]
            answers = np.concatenate([self.session.run(["logits"], one)[0] for one in inputs])
            if answers.shape != (len(pixels), len(self.class_names)) or answers.dtype != np.float32:
                raise ValueError(f"its logits are {answers.dtype} {list(answers.shape)}")
        return answers


def load_onnx(path: Path) -> OnnxStudent:
    """Read an export as ONNX.

    Raises:
        UsageError: ONNX Runtime is not installed.
        DataError: The file is no such export.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise missing_package(error, "onnx") from error
    with refused(f"{path} is no export of a student"):
        open_regular(path, MAX_ONNX_BYTES).close()
        session: Any = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
        names = TypeAdapter(ClassNames).validate_python(tuple(json.loads(facts["class_names"])))
        size, temperature = int(facts["size"]), float(facts["temperature"])
        if not (1 <= size <= MAX_IMAGE_SIZE and 1e-3 <= temperature <= 1e4):
            raise ValueError(f"its size is {size} and its temperature {temperature}")
    return OnnxStudent(path, session, names, size, temperature)
