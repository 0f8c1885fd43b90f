"""The student as two files: weights as safetensors under timm's own names, and a card as JSON.

Whether the weights are those of the card's model is found out from their header, before anything is allocated.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vl2v_client.core.errors import CacheError, DataError, RunError, UsageError
from vl2v_client.core.files import open_regular, replacing
from vl2v_client.core.values import MAX_WIDTH, PixelSource
from vl2v_client.student.model.classifier import StudentBundle, StudentClassifier, TextHead
from vl2v_client.student.model.network import NOT_WEIGHTS, empty_student
from vl2v_client.student.model.spec import MAX_CARD_BYTES, StudentCard, try_backbone
from vl2v_contract.identity import sha256_hex

WEIGHTS_FILE = "student.safetensors"
CARD_FILE = "student.json"
MAX_WEIGHTS_BYTES = 8 * 2**30
"""In fp32, weights of a ViT-L take 1.2 GB, and of the largest usual CLIP tower, ViT-bigG/14, 7.4 GB. The header is
compared with the card before memory is taken, so a file of any size takes about as much memory as it has bytes.
"""

CLASSIFIER_KEY = "classifier"  # the text classifier, `[C, D]`, beside the student's own weights

Header = dict[str, tuple[str, list[int]]]
"""Type and shape of each tensor in a file, by its name."""

_MAX_DERIVED_BYTES = 2**30
"""Size of tables that a model computes when it is built and its file does not hold, such as relative positions."""
_DTYPES = {torch.float32: "F32", torch.int64: "I64", torch.bool: "BOOL"}


def export_bundle(
    folder: Path, bundle: StudentBundle, *, check_pixels: PixelSource, logits: NDArray[np.float32] | None = None
) -> StudentBundle:
    """Write a student, read it back, and make sure that it is the one that was scored.

    `student.safetensors` holds the backbone under `backbone.` and timm's names (open_clip's, if the student is a
    teacher's image tower), the projection, and the text classifier `[C, D]` if there is one; `student.json` is the
    card.

    Args:
        folder: Made if absent; files of an earlier export are replaced.
        bundle: What to write.
        check_pixels: `[N, S, S, 3]` uint8, at least one view, such as the source validation set.
        logits: What the student says of them, `[N, C]`, if it was asked already.

    Returns:
        The bundle as read back, with the weights' hash on its card.

    Raises:
        CacheError: The folder cannot be written.
        RunError: The student read back does not give exactly the same logits.
    """
    classifier = bundle.classifier
    tensors: dict[str, Tensor] = dict(classifier.student.state_dict())
    if classifier.head is not None:
        tensors[CLASSIFIER_KEY] = torch.from_numpy(classifier.head.matrix)
    data = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    card = replace(bundle.card, weights_sha256=sha256_hex(data))
    try:
        for name, content in (WEIGHTS_FILE, data), (CARD_FILE, json.dumps(card.to_json(), indent=2).encode() + b"\n"):
            with replacing(folder / name) as file:
                file.write(content)
    except OSError as error:
        raise CacheError(
            f"{folder} cannot be written ({error.strerror}): make room or choose another folder"
        ) from error
    again = load_bundle(folder, device=classifier.device)
    wanted = classifier.logits(check_pixels) if logits is None else logits
    if not np.array_equal(again.classifier.logits(check_pixels), wanted):
        raise RunError(
            f"the student read back from {folder} is not the one that was scored: do not use it; report this"
        )
    return again


def student_folder(run: Path) -> Path:
    """Return the folder of the student in a run folder; of anything else the folder itself, perhaps a student's."""
    inside = run / "student"
    return inside if inside.is_dir() else run


def load_bundle(folder: Path, *, device: torch.device | str = "cpu") -> StudentBundle:
    """Read an exported student.

    It may be a stranger's: nothing is executed or fetched, and no memory is taken for weights before the header of
    their file is known to be that of the card's model.

    Raises:
        DataError: A file is missing, damaged, too large, has what no exported student has, or does not fit the other.
        UsageError: The student is an open_clip image tower, and open_clip is not installed.
    """
    path = folder / WEIGHTS_FILE
    try:
        with open_regular(folder / CARD_FILE, MAX_CARD_BYTES) as file:
            card = StudentCard.from_json(file.read())
        with open_regular(path, MAX_WEIGHTS_BYTES) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:  # ValueError: of a path that no file can have
        reason = f"{Path(error.filename).name}: {error.strerror}" if isinstance(error, OSError) else str(error)
        raise DataError(
            f"{folder} holds no exported student ({reason}): "
            "give the folder of a finished run, of a sweep TARGET/seedN/METHOD, or an export as vl2v"
        ) from error
    if found != card.weights_sha256:
        raise DataError(f"{path} is damaged: its SHA-256 is not the one on its card; copy it again")
    outputs = check_header(path, card)
    tensors = load_file(path)
    matrix = tensors.pop(CLASSIFIER_KEY, None)
    student = empty_student(card.student, outputs=outputs)
    student.load_state_dict(tensors)
    head = None if matrix is None else TextHead(matrix.numpy(), card.logit_scale or 1.0, card.logit_bias)
    return StudentBundle(StudentClassifier(student.to(device).eval(), card.student.input, head), card)


def check_header(path: Path, card: StudentCard) -> int:
    """Compare the tensors of a student's file with the model that its card describes; see `check_tensors`."""
    with refused(f"{path} does not fit its card"):
        stored = read_header(path)
    return check_tensors(path, stored, card)


def check_tensors(path: Path, stored: Header, card: StudentCard) -> int:
    """Compare each tensor's name, type and shape with the model that the card describes; return its outputs' width.

    The model is built on the meta device and given one image there, so whatever the card says, no memory is taken.

    Raises:
        DataError: The card describes no model, or the file `path` holds another one.
        UsageError: The student is an open_clip image tower, and open_clip is not installed.
    """
    with refused(f"{path} does not fit its card"):
        outputs = _output_width(stored, len(card.class_names))
    entry = "student.arguments" if card.student.tower is None else "student.open_clip"
    with refused(f"the student's card describes no {card.student.architecture!r} that can be built by `{entry}`"):
        with torch.device("meta"):
            student = empty_student(card.student, outputs=outputs)
        expected = _expected(student)
    if CLASSIFIER_KEY in stored:
        expected[CLASSIFIER_KEY] = "F32", [len(card.class_names), outputs]
    with refused(f"{path} does not fit its card"):
        different = [
            f"{name} is {_described(stored, name)} and by the card {_described(expected, name)}"
            for name in sorted({*stored, *expected})
            if stored.get(name) != expected.get(name) and (name in stored or not name.endswith(NOT_WEIGHTS))
        ]
        if different:
            raise ValueError(f"{len(different)} tensors differ: {'; '.join(different[:3])}")
    with refused(f"the student's card describes no model for `student.input.size` {card.student.input.size}"):
        features = try_backbone(student.backbone, card.student.input.size)
        if features != (1, card.student.features):
            raise ValueError(f"its features have the shape {features}, not (1, {card.student.features})")
    return outputs


@contextmanager
def refused(what: str) -> Iterator[None]:
    """Say what cannot be, and why, whatever a library raises where numbers do not go together.

    Raises:
        DataError: Anything but a `UsageError` was raised in the block.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[-1].strip()
        raise DataError(f"{what} ({reason}): export the student again") from error


def read_header(path: Path) -> Header:
    """Return type and shape of each tensor in a file, of which nothing else is read.

    Safetensors itself checks that the tensors fill the file and do not overlap.
    """
    with safe_open(str(path), framework="pt") as file:
        parts = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return {name: (part.get_dtype(), list(part.get_shape())) for name, part in parts.items()}


def _output_width(stored: Header, classes: int) -> int:
    """Return the width of the student's outputs, `D` where there is a text classifier `[C, D]`."""
    if CLASSIFIER_KEY not in stored:
        return classes
    _, shape = stored[CLASSIFIER_KEY]
    if len(shape) != 2 or shape[0] != classes or not 1 <= shape[1] <= MAX_WIDTH:
        told = _described(stored, CLASSIFIER_KEY)
        raise ValueError(f"its text classifier is {told} and the card has {classes} classes")
    return shape[1]


def _described(tensors: Header, name: str) -> str:
    kind, shape = tensors.get(name, ("absent", ""))
    return f"{kind} {shape}".rstrip()


def _expected(student: nn.Module) -> Header:
    state = student.state_dict()
    derived = sum(value.nbytes for name, value in student.named_buffers() if name not in state)
    if derived > _MAX_DERIVED_BYTES:
        raise ValueError(f"the model computes {derived:,} bytes of tables, more than {_MAX_DERIVED_BYTES:,}")
    return {name: (_DTYPES.get(value.dtype, str(value.dtype)), list(value.shape)) for name, value in state.items()}
