"""Where a model comes from: a name of open_clip's with a pretrained tag, or files.

A model configuration file is JSON, either plain (`embed_dim`, `vision_cfg`, `text_cfg`) or in the hub's form
(`model_cfg` and `preprocess_cfg`).
"""

import difflib
import json
import pickle  # nosec B403 # for its error
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from vl2v_vendor.domain.encoder import ModelInfo
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.images.preprocessing import SAFE, Interpolation

Precision = Literal["fp32", "fp16", "bf16", "int8"]

CONFIG_KEYS = ("embed_dim", "vision_cfg", "text_cfg")

_MAX_SUMMARY_LENGTH: Final = 200
_DEFAULT: Final = "open_clip's default"
_HUB: Final = "hf-hub:"
_FOLDER: Final = "local-dir:"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Which model to serve, and how. Plain values, so that it can be sent to the model process.

    Attributes:
        model_id: Its name on the price list.
        name: open_clip's architecture name; unused with `config_file`.
        pretrained: open_clip's tag, or a checkpoint file.
        config_file: Model configuration JSON; `checkpoint_file` then holds the weights.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: None is fp32 on CPU, fp16 on CUDA.
        image_mean: Overrides the model's own, as do `image_std` and `interpolation`.
        policy: Id of the pixel policy.
        threads: Number of torch's threads in the model's process; None leaves torch's choice.
        compile: Let torch.compile fuse the image tower.
        int8_min_cosine: The least cosine of an int8 vector to its fp32 vector.
    """

    model_id: str
    name: str = ""
    pretrained: str | None = None
    config_file: Path | None = None
    checkpoint_file: Path | None = None
    device: str = "auto"
    precision: Precision | None = None
    image_mean: tuple[float, float, float] | None = None
    image_std: tuple[float, float, float] | None = None
    interpolation: Interpolation | None = None
    policy: str = SAFE
    threads: int | None = None
    compile: bool = False
    int8_min_cosine: float = 0.99


def read_model_config(config_file: Path) -> dict[str, Any]:
    """Return the configuration in the hub's form: `model_cfg` and `preprocess_cfg`.

    Raises:
        ModelLoadFailed: No such file, not JSON, or not a model configuration.
    """
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelLoadFailed(f"cannot read model configuration {config_file}: {error.strerror}") from error
    except ValueError as error:
        raise ModelLoadFailed(f"model configuration {config_file} is not JSON: {error}") from error
    if isinstance(config, dict) and "model_cfg" in config:
        return {"model_cfg": config["model_cfg"], "preprocess_cfg": config.get("preprocess_cfg", {})}
    if isinstance(config, dict) and all(key in config for key in CONFIG_KEYS):
        return {"model_cfg": config, "preprocess_cfg": {}}
    raise ModelLoadFailed(f"{config_file} is no open_clip model configuration; it needs {', '.join(CONFIG_KEYS)}")


def build_model(spec: ModelSpec) -> Any:
    """Return the open_clip model in fp32 on the CPU, weights loaded.

    Raises:
        ModelLoadFailed: The message names the file or the name, and the remedy.
    """
    if spec.config_file is not None:
        return _build_from_files(spec.config_file, spec.checkpoint_file)
    return _build_by_name(spec.name, spec.pretrained)


def check_model_name(name: str, pretrained: str | None) -> None:
    """Check an architecture name and its tag against open_clip's lists.

    Raises:
        ModelLoadFailed: Names the nearest names, or the tags there are.
    """
    import open_clip

    if name.startswith((_HUB, _FOLDER)):
        return
    known = open_clip.list_models()
    if name.replace("/", "-") not in known:
        nearest = difflib.get_close_matches(name, known, n=4, cutoff=0.4) or known[:4]
        raise ModelLoadFailed(f"open_clip knows no model `{name}`; the nearest names are {', '.join(nearest)}")
    tags = open_clip.list_pretrained_tags_by_model(name.replace("/", "-"))
    if pretrained is None:
        raise ModelLoadFailed(
            f"model `{name}` needs weights: --pretrained with a file or one of {', '.join(tags) or 'no tags'}"
        )
    is_tag = pretrained.lower().replace("-", "_") in {tag.lower().replace("-", "_") for tag in tags}
    if not is_tag and not Path(pretrained).is_file():
        raise ModelLoadFailed(
            f"`{pretrained}` is neither a file nor a pretrained tag of `{name}`; tags: {', '.join(tags) or 'none'}"
        )


def _build_by_name(name: str, pretrained: str | None) -> Any:
    import open_clip

    check_model_name(name, pretrained)
    try:
        with warnings.catch_warnings():
            # Warns when tag and architecture disagree on QuickGELU: wrong vectors, so it must not pass as a warning.
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            model = open_clip.create_model(name, pretrained=pretrained, require_pretrained=True)
    except UserWarning as error:
        raise ModelLoadFailed(f"{error} Use the architecture `{name}-quickgelu`, or the other way round.") from error
    except Exception as error:
        _refuse_more_than_weights(error, pretrained)
        # Hub clients raise many kinds of errors for a missing network; the operator needs one sentence.
        raise ModelLoadFailed(
            f"cannot load `{name}` with weights `{pretrained}`; without a network give a checkpoint file as "
            f"--pretrained. The cause: {_summary(error)}"
        ) from error
    if pretrained and Path(pretrained).is_file():
        _check_activation(model, Path(pretrained))
    return model


def _build_from_files(config_file: Path, checkpoint_file: Path | None) -> Any:
    import open_clip

    config = read_model_config(config_file)
    if checkpoint_file is None:
        raise ModelLoadFailed(
            f"{config_file} has no weights; give its checkpoint as --pretrained (.safetensors or .pt)"
        )
    if not checkpoint_file.is_file():
        raise ModelLoadFailed(
            f"no checkpoint for {config_file} at {checkpoint_file}; give one as --pretrained (.safetensors or .pt)"
        )
    try:
        with tempfile.TemporaryDirectory(prefix="vl2v-model-") as folder:
            Path(folder, "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
            model = open_clip.create_model(
                f"local-dir:{folder}", load_weights=False, pretrained_image=False, pretrained_text=False
            )
    except Exception as error:
        raise ModelLoadFailed(f"{config_file} describes no model: {_summary(error)}") from error
    try:
        open_clip.load_checkpoint(model, str(checkpoint_file), weights_only=True)
    except Exception as error:
        _refuse_more_than_weights(error, checkpoint_file)
        if isinstance(error, RuntimeError):
            raise ModelLoadFailed(
                f"checkpoint {checkpoint_file} does not fit {config_file}: {_summary(error)}"
            ) from error
        # Safetensors has errors of its own for a file that is damaged or something else.
        raise ModelLoadFailed(
            f"{checkpoint_file} is no readable .safetensors or .pt checkpoint ({type(error).__name__})"
        ) from error
    _check_activation(model, checkpoint_file)
    return model


def _refuse_more_than_weights(error: Exception, checkpoint_file: Path | str | None) -> None:
    """Explain a refusal of torch, which open_clip asks for weights alone: a pickle or a TorchScript archive."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        raise ModelLoadFailed(
            f"checkpoint {checkpoint_file} is damaged or holds more than weights, which could run code when it is "
            "opened; save the model's state_dict as .safetensors"
        ) from error


def _check_activation(model: Any, checkpoint_file: Path) -> None:
    """Refuse a file that open_clip lists as trained with QuickGELU for a model without it; weights fit either."""
    import open_clip
    from open_clip.transformer import QuickGELU

    if any(isinstance(module, QuickGELU) for module in model.modules()):
        return
    listed = [open_clip.get_pretrained_cfg(name, tag) for name, tag in open_clip.list_pretrained()]
    same_file = [tag for tag in listed if Path(tag.get("url", "")).name == checkpoint_file.name]
    is_quick = same_file and all(tag.get("quick_gelu", False) for tag in same_file)
    if is_quick or "quickgelu" in checkpoint_file.stem.lower():
        raise ModelLoadFailed(
            f"by its name {checkpoint_file.name} was trained with QuickGELU, and the model has GELU, so its vectors "
            'would be wrong; use the architecture `...-quickgelu`, or `"quick_gelu": true` in the model configuration '
            "(or rename the file, if its weights are others)"
        )


def _summary(error: Exception) -> str:
    """Return the first lines of a library's message, which may run to pages."""
    text = " ".join([line.strip() for line in str(error).splitlines() if line.strip()][:2]) or type(error).__name__
    return text if len(text) <= _MAX_SUMMARY_LENGTH else f"{text[:_MAX_SUMMARY_LENGTH]}..."


def normalisation_source(spec: ModelSpec) -> dict[str, str]:
    """Say where `mean` and `std` come from: a setting, a file, a pretrained tag or open_clip's default."""
    config_file, source = _config_file(spec), dict.fromkeys(("mean", "std"), _DEFAULT)
    if config_file is not None:
        named = read_model_config(config_file)["preprocess_cfg"]
        source |= {name: f"preprocess_cfg of {config_file.name}" for name in source if named.get(name) is not None}
    elif spec.name.startswith(_HUB):
        source = dict.fromkeys(source, f"the configuration of {spec.name}, or {_DEFAULT}")
    elif spec.pretrained is not None and not Path(spec.pretrained).is_file():
        source = dict.fromkeys(source, f"open_clip's pretrained tag {spec.pretrained}")
    settings = {"mean": spec.image_mean, "std": spec.image_std}
    return source | {name: f"setting image_{name}" for name, values in settings.items() if values}


def normalisation_lines(spec: ModelSpec, info: ModelInfo, *, own: bool = True) -> dict[str, str]:
    """Write the values in use and their sources, by the label that the operator is shown.

    There is a warning if a model configuration file leaves mean or deviation to open_clip, which takes CLIP's then,
    without a message.

    Args:
        spec: What was asked for.
        info: The loaded model.
        own: The configuration file is the operator's and deserves a warning; that of the packaged model does not.
    """
    config_file, source = _config_file(spec), normalisation_source(spec)
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (info.image_mean, info.image_std))
    lines = {"pixels": f"mean {mean} ({source['mean']}), deviation {std} ({source['std']})"}
    words = {"mean": "no mean", "std": "no deviation"}
    missing = [word for name, word in words.items() if source[name] == _DEFAULT]
    if own and config_file is not None and missing:
        lines["warning"] = (
            f"{config_file.name} names {' and '.join(missing)}, so open_clip's default is used, which is CLIP's; a "
            "model that was trained with other values gives worse vectors, without an error. Name both in the file "
            '("preprocess_cfg": {"mean": [...], "std": [...]} beside "model_cfg"), or set image_mean and image_std'
        )
    return lines


def _config_file(spec: ModelSpec) -> Path | None:
    """Return the model configuration file of one's own, if there is one."""
    if spec.config_file is None and spec.name.startswith(_FOLDER):
        return Path(spec.name.removeprefix(_FOLDER), "open_clip_config.json")
    return spec.config_file
