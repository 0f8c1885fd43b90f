"""Where the mean and deviation of a model's input come from.

open_clip takes CLIP's mean and deviation for a model configuration file that names none, without a message. A model
that was trained with other values then gives worse vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vl2v_vendor.domain.encoder import ModelInfo
from vl2v_vendor.engine.models.open_clip_files import ModelSpec, read_model_config

_DEFAULT: Final = "open_clip's default"
_HUB: Final = "hf-hub:"
_FOLDER: Final = "local-dir:"


@dataclass(frozen=True, slots=True)
class NormalisationSource:
    """Sources, in words.

    Attributes:
        mean: Source of the mean, such as `preprocess_cfg of model.json`.
        std: Source of the deviation.
    """

    mean: str
    std: str


def normalisation_source(spec: ModelSpec) -> NormalisationSource:
    """Say where mean and deviation come from: a setting, a file, a pretrained tag or open_clip's default.

    Raises:
        ModelLoadFailed: The model configuration file cannot be read.
    """
    set_here = {"mean": spec.image_mean, "std": spec.image_std}
    found = {name: f"setting image_{name}" if value else _own_source(spec, name) for name, value in set_here.items()}
    return NormalisationSource(**found)


def normalisation_lines(spec: ModelSpec, info: ModelInfo, *, own: bool = True) -> dict[str, str]:
    """Write the values in use and their sources, by the label that the operator is shown.

    Args:
        spec: What was asked for.
        info: The loaded model.
        own: The configuration file is the operator's and deserves a warning; that of the packaged model does not.

    Raises:
        ModelLoadFailed: The model configuration file cannot be read.
    """
    source, warning = normalisation_source(spec), normalisation_warning(spec) if own else None
    mean, std = _channels(info.image_mean), _channels(info.image_std)
    lines = {"pixels": f"mean {mean} ({source.mean}), deviation {std} ({source.std})"}
    return lines if warning is None else {**lines, "warning": warning}


def normalisation_warning(spec: ModelSpec) -> str | None:
    """Return what to do if a model configuration file leaves mean or deviation to open_clip's default; else None.

    Raises:
        ModelLoadFailed: The model configuration file cannot be read.
    """
    config_file = _config_file(spec)
    if config_file is None:
        return None
    source = normalisation_source(spec)
    words = {"mean": source.mean, "deviation": source.std}
    missing = [f"no {word}" for word, origin in words.items() if origin == _DEFAULT]
    if not missing:
        return None
    return (
        f"{config_file.name} names {' and '.join(missing)}, so open_clip's default is used, which is CLIP's; a "
        "model that was trained with other values gives worse vectors, without an error. Name both in the file "
        '("preprocess_cfg": {"mean": [...], "std": [...]} beside "model_cfg"), or set image_mean and image_std'
    )


def _own_source(spec: ModelSpec, name: str) -> str:
    """Where the model itself has `mean` or `std` from."""
    config_file = _config_file(spec)
    if config_file is not None:
        named = read_model_config(config_file)["preprocess_cfg"].get(name) is not None
        return f"preprocess_cfg of {config_file.name}" if named else _DEFAULT
    if (spec.name or "").startswith(_HUB):
        return f"the configuration of {spec.name}, or {_DEFAULT}"
    is_tag = spec.pretrained is not None and not Path(spec.pretrained).is_file()
    return f"open_clip's pretrained tag {spec.pretrained}" if is_tag else _DEFAULT


def _config_file(spec: ModelSpec) -> Path | None:
    """The model configuration file of one's own, if there is one."""
    if spec.config_file is None and (spec.name or "").startswith(_FOLDER):
        return Path((spec.name or "").removeprefix(_FOLDER), "open_clip_config.json")
    return spec.config_file


def _channels(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
