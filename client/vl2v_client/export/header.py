"""Whether a weights file is the student of its card: found out from the file's header, before anything is allocated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.core.values import MAX_WIDTH
from vl2v_client.student.model.bundle import StudentCard
from vl2v_client.student.model.network import NOT_WEIGHTS, empty_student
from vl2v_client.student.model.trial import try_backbone

CLASSIFIER_KEY = "classifier"
"""The text classifier, `[C, D]`, beside the student's own weights."""

_MAX_DERIVED_BYTES = 2**30
"""Size of tables that a model computes when it is built and its file does not hold, such as relative positions."""
_DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}
_NAMED = 3


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """What the header says of one tensor.

    Attributes:
        dtype: Safetensors' name of it, such as `F32`.
        shape: Shape of the tensor.
    """

    dtype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def check_header(path: Path, card: StudentCard) -> int:
    """Compare each tensor's name, type and shape with the model that the card describes.

    The model is built on the meta device and given one image there, so whatever the card says, no memory is taken.

    Args:
        path: Path of the weights, a safetensors file.
        card: Beside it.

    Returns:
        The width of the student's outputs, `D`: the teacher's, or the number of classes for a linear head.

    Raises:
        DataError: The card describes no model, or the file holds another one.
        UsageError: The student is an open_clip image tower, and open_clip is not installed.
    """
    with _refused(f"{path} does not fit its card"):
        stored = _read_header(path)
        outputs = _outputs(stored, len(card.class_names))
    entry = "student.arguments" if card.student.tower is None else "student.open_clip"
    with _refused(f"the student's card describes no {card.student.architecture!r} that can be built by `{entry}`"):
        with torch.device("meta"):
            student = empty_student(card.student, outputs=outputs)
        expected = _expected(student)
    if CLASSIFIER_KEY in stored:
        expected[CLASSIFIER_KEY] = StoredTensor("F32", (len(card.class_names), outputs))
    with _refused(f"{path} does not fit its card"):
        _compare(stored, expected)
    with _refused(f"the student's card describes no model for `student.input.size` {card.student.input.size}"):
        features = try_backbone(student.backbone, card.student.input.size)
        if features != (1, card.student.features):
            raise ValueError(f"its features have the shape {features}, not (1, {card.student.features})")
    return outputs


@contextmanager
def _refused(what: str) -> Iterator[None]:
    """Say what cannot be, and why, whatever a library raises where numbers do not go together."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise DataError(f"{what} ({reason}): export the student again") from error


def _read_header(path: Path) -> dict[str, StoredTensor]:
    """Return safetensors itself checks that the tensors fill the file and do not overlap."""
    with safe_open(str(path), framework="pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return {name: StoredTensor(part.get_dtype(), tuple(part.get_shape())) for name, part in parts.items()}


def _outputs(stored: Mapping[str, StoredTensor], classes: int) -> int:
    matrix = stored.get(CLASSIFIER_KEY)
    if matrix is None:
        return classes
    if len(matrix.shape) != 2 or matrix.shape[0] != classes or not 1 <= matrix.shape[1] <= MAX_WIDTH:
        raise ValueError(f"its text classifier is {matrix} and the card has {classes} classes")
    return matrix.shape[1]


def _expected(student: nn.Module) -> dict[str, StoredTensor]:
    state = student.state_dict()
    _check_derived(student, set(state))
    return {
        name: StoredTensor(_DTYPES.get(value.dtype, str(value.dtype)), tuple(value.shape))
        for name, value in state.items()
    }


def _check_derived(student: nn.Module, in_file: set[str]) -> None:
    derived = sum(value.nbytes for name, value in student.named_buffers() if name not in in_file)
    if derived > _MAX_DERIVED_BYTES:
        raise ValueError(f"the model computes {derived:,} bytes of tables, more than {_MAX_DERIVED_BYTES:,}")


def _compare(stored: Mapping[str, StoredTensor], expected: Mapping[str, StoredTensor]) -> None:
    different = [
        name
        for name in sorted({*stored, *expected})
        if stored.get(name) != expected.get(name) and (name in stored or not name.endswith(NOT_WEIGHTS))
    ]
    if different:
        told = (
            f"{name} is {stored.get(name, 'absent')} and by the card {expected.get(name, 'absent')}"
            for name in different[:_NAMED]
        )
        raise ValueError(f"{len(different)} tensors differ: {'; '.join(told)}")
