"""The student as two files: weights as safetensors under timm's own names, and a card as JSON."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from vl2v_client.core.errors import CacheError, DataError, RunError
from vl2v_client.core.files import open_regular
from vl2v_client.export.header import CLASSIFIER_KEY, check_header
from vl2v_client.student.model.bundle import StudentBundle, StudentCard
from vl2v_client.student.model.card import MAX_CARD_BYTES
from vl2v_client.student.model.classifier import StudentClassifier, TextHead
from vl2v_client.student.model.network import empty_student
from vl2v_contract.canonical import sha256_hex

WEIGHTS_FILE = "student.safetensors"
CARD_FILE = "student.json"
MAX_WEIGHTS_BYTES = 8 * 2**30
"""In fp32, weights of a ViT-L take 1.2 GB, and of the largest usual CLIP tower, ViT-bigG/14, 7.4 GB. The header is
compared with the card before memory is taken, so a file of any size takes about as much memory as it has bytes.
"""


def export_bundle(folder: Path, bundle: StudentBundle, *, check_pixels: NDArray[np.uint8]) -> StudentBundle:
    """Write a student, reads it back, and makes sure that it is the one that was scored.

    `student.safetensors` holds the backbone under `backbone.` and timm's names (open_clip's, if the student is a
    teacher's image tower), the projection, and the text
    classifier `[C, D]` if there is one; `student.json` is the card.

    Args:
        folder: Made if absent; files of an earlier export are replaced.
        bundle: What to write.
        check_pixels: `[N, S, S, 3]` uint8, at least one view, such as the source validation set.

    Returns:
        The bundle as read back, with the weights' hash on its card.

    Raises:
        CacheError: The folder cannot be written.
        RunError: The student read back does not give exactly the same logits.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in _tensors(bundle.classifier).items()}
    data = save(tensors)
    card = replace(bundle.card, weights_sha256=sha256_hex(data))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS_FILE, data)
        _replace(folder / CARD_FILE, json.dumps(card.to_json(), indent=2).encode() + b"\n")
    except OSError as error:
        raise CacheError(
            f"{folder} cannot be written ({error.strerror}): make room or choose another folder"
        ) from error
    again = load_bundle(folder, device=bundle.classifier.device)
    if not np.array_equal(again.classifier.logits(check_pixels), bundle.classifier.logits(check_pixels)):
        raise RunError(
            f"the student read back from {folder} is not the one that was scored: do not use it; report this"
        )
    return again


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
            "give the folder of a finished run, or of a sweep TARGET/seedN/METHOD"
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


def _tensors(classifier: StudentClassifier) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = dict(classifier.student.state_dict())
    if classifier.head is not None:
        tensors[CLASSIFIER_KEY] = torch.from_numpy(classifier.head.matrix)
    return tensors


def _replace(path: Path, data: bytes) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)
