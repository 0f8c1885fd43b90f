"""A finished student in a format that others load: written beside its place, compared with the student, then moved."""

import json
import secrets
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vl2v_client.config.run import ExportFormat
from vl2v_client.core.errors import CacheError, ClientError, RunError, UsageError
from vl2v_client.core.values import PixelSource
from vl2v_client.evaluation.accuracy import log_probabilities
from vl2v_client.export.agreement import Agreement, compare
from vl2v_client.export.model_card import ModelFacts, model_card
from vl2v_client.export.onnx_format import check_packages, write_onnx
from vl2v_client.export.timm_format import CONFIG_FILE, hub_config, read_hub, timm_probabilities, write_timm
from vl2v_client.export.weights import WEIGHTS_FILE, export_bundle
from vl2v_client.student.model.classifier import StudentBundle

_Writer = Callable[[Path, StudentBundle, PixelSource, NDArray[np.float64]], Agreement]


def check_target(out: Path, format_: ExportFormat) -> None:
    """Refuse what cannot be written, before anything is computed.

    Raises:
        UsageError: Something is there already, or a package is missing.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise UsageError(f"{out} exists already: remove it, or choose another folder")
    if format_ == "onnx":
        check_packages()


def write_export(
    out: Path, format_: ExportFormat, bundle: StudentBundle, pixels: PixelSource, facts: ModelFacts
) -> Agreement:
    """Write an export, compare it with the student, and only then give it its name.

    Args:
        out: The folder to make.
        format_: What to write.
        bundle: Student, on the CPU.
        pixels: `[N, S, S, 3]` uint8, views that both are asked about.
        facts: What the model card says beside the student's own card.

    Raises:
        UsageError: The format cannot hold this student, a package is missing, or `out` is there already.
        RunError: The format's library cannot write or read it, or what was written answers otherwise than the student;
            nothing is left of it.
        CacheError: The folder cannot be written.
    """
    check_target(out, format_)
    logits = bundle.classifier.logits(pixels)
    wanted = np.exp(log_probabilities(logits, bundle.card.temperature))
    try:
        partial = out.parent / f".{out.name}.partial-{secrets.token_hex(4)}"
        partial.mkdir(parents=True)
        try:
            agreement = _WRITERS[format_](partial, bundle, pixels, wanted)
            names = "".join(f"{name}\n" for name in bundle.card.class_names)
            (partial / "labels.txt").write_text(names, encoding="utf-8")
            (partial / "README.md").write_text(model_card(format_, bundle.card, facts, agreement), encoding="utf-8")
            partial.rename(out)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except ClientError:
        raise
    except OSError as error:
        raise CacheError(f"{out} cannot be written ({error.strerror}): make room or choose another folder") from error
    except Exception as error:  # whatever the format's own library raises that cannot write it or read it back
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RunError(f"the student cannot be exported as {format_} ({reason}): choose another format") from error
    return agreement


def _write_hub(folder: Path, bundle: StudentBundle, pixels: PixelSource, wanted: NDArray[np.float64]) -> Agreement:
    agreement = write_timm(folder, bundle, pixels, wanted)
    config = json.dumps(hub_config(bundle.card), indent=2, ensure_ascii=False)
    (folder / CONFIG_FILE).write_text(config + "\n", encoding="utf-8")
    found = timm_probabilities(read_hub(folder), bundle.card, pixels)
    return compare(CONFIG_FILE, found, wanted, exact=agreement.exact)


def _write_own(folder: Path, bundle: StudentBundle, pixels: PixelSource, wanted: NDArray[np.float64]) -> Agreement:
    export_bundle(folder, bundle, check_pixels=pixels)  # which refuses any other logit
    return compare(WEIGHTS_FILE, wanted, wanted)


_WRITERS: Mapping[ExportFormat, _Writer] = {
    "timm": write_timm,
    "hf": _write_hub,
    "onnx": write_onnx,
    "vl2v": _write_own,
}
