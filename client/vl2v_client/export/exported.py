"""A finished student by its place: a run, the student in it, or what `export` wrote, in any format."""

from pathlib import Path

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.evaluation.image_predictions import ImageClassifier
from vl2v_client.export import timm_format
from vl2v_client.export.onnx_format import ONNX_FILE
from vl2v_client.export.onnx_reader import load_onnx
from vl2v_client.export.timm_reader import load_timm
from vl2v_client.export.weights import CARD_FILE, WEIGHTS_FILE, load_bundle, student_folder
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.train.devices import resolve_device

_FILES = (CARD_FILE, WEIGHTS_FILE, timm_format.WEIGHTS_FILE, timm_format.CONFIG_FILE, ONNX_FILE)


def load_classifier(place: Path, device: str) -> ImageClassifier:
    """Read whatever `place` holds that classifies images.

    Args:
        place: Folder of a run, of a student or of an export, or a file of the latter two.
        device: `auto`, or a device as torch names it; an ONNX file runs on the CPU.

    Raises:
        DataError: There is no student, or it is damaged.
        UsageError: There is no such device, or a package is missing.
    """
    path = place if place.suffix == ".onnx" else _folder(place) / ONNX_FILE
    if not path.is_file():
        return load_student(place, device)
    if device not in ("auto", "cpu"):
        raise UsageError(f"{path} runs on the CPU here: leave the device out, or give the run that it was made of")
    return load_onnx(path)


def load_student(place: Path, device: str) -> StudentBundle:
    """Read the student of a run, or of an export that holds its weights: `vl2v`, `hf` or `timm`.

    Takes what `load_classifier` takes.

    Raises:
        DataError: There is no student, or it is damaged.
        UsageError: There is no such device, a package is missing, or it is an ONNX file.
    """
    folder = _folder(place)
    if place.suffix == ".onnx" or (folder / ONNX_FILE).is_file():
        raise UsageError(
            f"{place} is an ONNX file: `vl2v-client predict` and ONNX Runtime read it; give the run that it was made "
            "of, or an export as vl2v, hf or timm"
        )
    if (folder / timm_format.WEIGHTS_FILE).is_file():
        return load_timm(folder, device=resolve_device(device))
    if not (folder / WEIGHTS_FILE).is_file() and not (folder / CARD_FILE).is_file():
        if (place / "methods").is_dir():
            raise DataError(
                f"{place} is a run that has not ended: the same `distill` goes on with it, or ends it with "
                "training.quick added"
            )
        what = "holds no student" if place.is_dir() else "is no folder" if place.exists() else "does not exist"
        raise DataError(
            f"{place} {what}: give the folder of a finished `distill`, of one run of a sweep (TARGET/seedN/METHOD), or "
            f"what `export` wrote; {WEIGHTS_FILE} and {CARD_FILE} were expected in it or in its folder `student`, or "
            f"{timm_format.WEIGHTS_FILE} of an export as hf or timm, or {ONNX_FILE}"
        )
    return load_bundle(folder, device=resolve_device(device))


def _folder(place: Path) -> Path:
    """Return the folder of the student's files."""
    if place.name in _FILES and place.is_file():
        return place.parent
    return student_folder(place)
