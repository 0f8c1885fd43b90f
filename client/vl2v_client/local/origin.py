"""Where a local teacher comes from: a name of open_clip's with a pretrained tag, or files.

A model configuration file is JSON, either plain (`embed_dim`, `vision_cfg`, `text_cfg`) or in the hub's form
(`model_cfg`, and `preprocess_cfg` with mean, std and size).
"""

import difflib
import json
import logging
import pickle  # nosec B403 # for its error
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.core.extras import missing_package

Precision = Literal["fp32", "fp16", "bf16"]

_CONFIG_KEYS = ("embed_dim", "vision_cfg", "text_cfg")
_LONGEST_SUMMARY = 200


@dataclass(frozen=True, slots=True)
class LocalModel:
    """Which model, and how it runs.

    Attributes:
        model: `NAME/TAG` or `NAME` of open_clip's, or the path of a configuration JSON.
        weights: Checkpoint file; instead of a tag, or beside a configuration.
        device: Device as torch names it.
        precision: Precision of the frozen teacher's forward passes; halves are for CUDA.
    """

    model: str
    weights: Path | None = None
    device: str = "cpu"
    precision: Precision = "fp32"

    @property
    def config_file(self) -> Path | None:
        """The configuration, if the model is given by files."""
        return Path(self.model) if self.model.endswith(".json") else None

    @property
    def name(self) -> str:
        """Open_clip's architecture name, or the configuration file's."""
        return self.config_file.stem if self.config_file else self.model.partition("/")[0]


LoadedModel = tuple[nn.Module, Mapping[str, Any], Any]
"""An open_clip model in fp32 on the CPU, its configuration (`embed_dim`, `vision_cfg`, ...) and its tokenizer."""


def open_clip() -> Any:
    """Return the library, or what to install.

    Raises:
        UsageError: It is not there.
    """
    try:
        import open_clip as library
    except ImportError as error:
        raise missing_package(error, "local") from error
    return library


def load_model(wanted: LocalModel) -> LoadedModel:
    """Build the model, load its weights and find its tokenizer.

    Raises:
        UsageError: `open_clip` is not installed, or knows no such name or tag.
        DataError: A file is missing, damaged or does not fit, or weights cannot be fetched.
    """
    library = open_clip()
    if wanted.config_file is not None:
        return _load_files(library, wanted.config_file, wanted.weights)
    return _load_named(library, wanted)


def _load_named(library: Any, wanted: LocalModel) -> LoadedModel:
    name, _, tag = wanted.model.partition("/")
    known = library.list_models()
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=4, cutoff=0.4) or known[:4]
        raise UsageError(f"open_clip knows no model {name!r}; the nearest names are {', '.join(nearest)}")
    tags = library.list_pretrained_tags_by_model(name)
    if bool(tag) == (wanted.weights is not None) or (tag and tag not in tags):
        raise UsageError(
            f"the model {name!r} needs weights: a tag as in {name}/TAG, one of {', '.join(tags) or 'none'}, "
            "or a checkpoint file, not both"
        )
    if wanted.weights is not None and not wanted.weights.is_file():
        raise DataError(f"there is no checkpoint {wanted.weights}: give a .safetensors or .pt file")
    pretrained = tag or str(wanted.weights)
    try:
        with warnings.catch_warnings():
            # Warns when tag and architecture disagree on QuickGELU: wrong vectors, so it must not pass as a warning.
            warnings.filterwarnings("error", message="QuickGELU mismatch")
            network = library.create_model(name, pretrained=pretrained, require_pretrained=True)
    except UserWarning as error:
        raise UsageError(f"{error} Use the model {name}-quickgelu, or the other way round") from error
    except Exception as error:  # the hub's clients raise many kinds of errors for a missing network
        raise DataError(
            f"cannot load {name!r} with weights {pretrained!r} ({_summary(error)}): "
            "check the network, or give a checkpoint file of that model"
        ) from error
    return network, library.get_model_config(name), library.get_tokenizer(name)


def _load_files(library: Any, config_file: Path, weights: Path | None) -> LoadedModel:
    config = _read_config(config_file)
    if weights is None:
        raise UsageError(f"{config_file} has no weights: name its .safetensors or .pt file with purchase.local_weights")
    if not weights.is_file():
        raise DataError(f"there is no checkpoint for {config_file} at {weights}: give its .safetensors or .pt file")
    logged = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it warns that no weights were loaded, which comes next
    try:
        with tempfile.TemporaryDirectory(prefix="vl2v-model-") as folder:
            Path(folder, "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
            network = library.create_model(
                f"local-dir:{folder}", load_weights=False, pretrained_image=False, pretrained_text=False
            )
    except Exception as error:  # whatever a wrong value makes the towers raise
        raise DataError(f"{config_file} describes no model ({_summary(error)}): correct it") from error
    finally:
        logging.disable(logged)
    try:
        library.load_checkpoint(network, str(weights), weights_only=True)
    except Exception as error:  # unpickling and safetensors have errors of their own for a damaged file
        raise DataError(f"{weights} holds no weights of {config_file} ({_summary(error)}): give its own") from error
    return network, config["model_cfg"], _tokenizer_of(config["model_cfg"], config_file)


def _read_config(config_file: Path) -> dict[str, Any]:
    """Return the configuration in the hub's form."""
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{config_file} cannot be read as JSON ({error}): give a model configuration") from error
    if isinstance(config, dict) and "model_cfg" in config:
        return {"model_cfg": config["model_cfg"], "preprocess_cfg": config.get("preprocess_cfg", {})}
    if isinstance(config, dict) and all(key in config for key in _CONFIG_KEYS):
        return {"model_cfg": config, "preprocess_cfg": {}}
    raise DataError(f"{config_file} is no open_clip model configuration: it needs {', '.join(_CONFIG_KEYS)}")


def _tokenizer_of(config: Mapping[str, Any], config_file: Path) -> Any:
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = config.get("text_cfg", {})
    length, arguments = text.get("context_length", 77), text.get("tokenizer_kwargs", {})
    try:
        if not text.get("hf_tokenizer_name"):
            return SimpleTokenizer(context_length=length, **arguments)
        beside = config_file.parent
        source = str(beside) if (beside / "tokenizer_config.json").is_file() else text["hf_tokenizer_name"]
        return HFTokenizer(source, context_length=length, **arguments)
    except Exception as error:  # a missing library, file or network
        raise DataError(f"cannot load the tokenizer of {config_file} ({_summary(error)})") from error


def _summary(error: Exception) -> str:
    """Return the first lines of a library's message, which may run to pages."""
    if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):
        # where torch's own message says how to load it all the same
        return "it holds more than weights, or is damaged: save the model's state_dict as .safetensors"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]) or type(error).__name__
    return text if len(text) <= _LONGEST_SUMMARY else f"{text[:_LONGEST_SUMMARY]}..."
