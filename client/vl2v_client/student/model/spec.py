"""Which student: a timm architecture, where its first weights come from, and the input it was trained on."""

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import timm
import torch
from pydantic import Field, GetCoreSchemaHandler
from pydantic_core import CoreSchema, from_json
from pydantic_core.core_schema import no_info_after_validator_function
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vl2v_client.config.run import LITE0, TINY
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.core.values import MAX_IMAGE_SIZE, MAX_LOGIT_SCALE
from vl2v_client.data.folder import ClassNames
from vl2v_client.student.model.card import STRICT, InputFormat, Size, StudentEntry, Text, read_entry
from vl2v_client.student.model.packaged import (
    LITE0_ARCHITECTURE,
    LITE0_MEAN,
    LITE0_SHA256,
    LITE0_SIZE,
    LITE0_STD,
    lite0_weights,
    tiny_weights,
)
from vl2v_contract.identity import sha256_hex

MAX_CARD_BYTES = 4 * 2**20
"""Room for the names of 50,000 classes at 80 bytes each."""

MAX_OPERATIONS = 10**13
"""For one image, forward. The largest CLIP tower that open_clip can make a student of takes 2.9e12, ViT-L/14 4e11."""


def try_backbone(backbone: nn.Module, size: int) -> tuple[int, ...]:
    """Feed a backbone on the meta device one image, `[1, 3, size, size]`; return the shape of its features.

    Raises:
        ValueError: One image takes more than `MAX_OPERATIONS`.
        Exception: The backbone cannot take such an image; whatever its library raises.
    """
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        shape = tuple(backbone.eval()(torch.empty(1, 3, size, size)).shape)
    operations = counter.get_total_flops()
    if operations > MAX_OPERATIONS:
        raise ValueError(f"one image takes {operations:.1e} operations, more than {MAX_OPERATIONS:.0e}")
    return shape


@dataclass(frozen=True, slots=True)
class StudentSpec:
    """Everything that builds a student's backbone again.

    Attributes:
        architecture: Timm's name, without a tag.
        arguments: Arguments of `timm.create_model`, beside `num_classes=0`.
        input: What the backbone is fed.
        features: Width `F` of its pooled features.
        tag: Timm's tag of pretrained weights to fetch, written out, because timm's default tags move.
        weights: A local safetensors file under timm's names, or a packaged student's file, instead of a tag.
        weights_sha256: SHA-256 of that file.
        tower: What builds an open_clip image tower, `local.teacher.tower_config`, if the student is one and not timm's.
        origin: What a card says of the first weights: a tag, or the SHA-256 of a file.
    """

    architecture: str
    input: InputFormat
    features: int
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tag: str | None = None
    weights: Path | None = None
    weights_sha256: str | None = None
    tower: Mapping[str, Any] | None = None
    origin: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the card's entries; local paths stay out of it."""
        entries = {
            "architecture": self.architecture,
            "arguments": dict(self.arguments),
            "features": self.features,
            "input": asdict(self.input),
            "initial_weights": self.tag or self.weights_sha256 or self.origin,
        }
        return entries if self.tower is None else {**entries, "open_clip": dict(self.tower), "needs": "vl2v[local]"}

    @classmethod
    def from_entry(cls, entry: StudentEntry) -> "StudentSpec":
        """Return the architecture and input of a card; its weights are in the bundle beside it."""
        tower = None if entry.open_clip is None else entry.open_clip.model_dump(exclude_unset=True)
        arguments = entry.arguments.model_dump(exclude_unset=True)
        return cls(
            entry.architecture, entry.input, entry.features, arguments, tower=tower, origin=entry.initial_weights
        )

    @classmethod
    def __get_pydantic_core_schema__(cls, _: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return no_info_after_validator_function(cls.from_entry, handler.generate_schema(StudentEntry))


@dataclass(frozen=True)
class StudentCard:
    """Everything about a student but its weights.

    Attributes:
        view_size: Images are rendered at this size, as they were for training: the student's input size. In students of
            version 0.1 it is the teacher's, and the pixels are resized.
        class_names: Names of the classes in the order of the logits.
        prompt_templates: Templates that the text classifier was made with; empty for a linear head.
        logit_scale: Logit scale of the text classifier; `None` for a linear head.
        temperature: Fitted on source validation; probabilities are `softmax(logits / temperature)`.
        teacher: The vendor's model, `id` and `weights_sha`; empty if there was none.
        queries: Numbers of `images` and `texts` bought for this student.
        scores: Accuracies by name, 0 to 1.
        target_domain: What was held out, if anything.
        weights_sha256: SHA-256 of the file beside the card; filled in on export.
    """

    __pydantic_config__ = STRICT

    student: StudentSpec
    view_size: Size
    class_names: ClassNames
    method: Text
    seed: int
    prompt_templates: Annotated[tuple[Text, ...], Field(max_length=10_000)] = ()
    logit_scale: Annotated[float, Field(gt=0, le=MAX_LOGIT_SCALE)] | None = None
    logit_bias: Annotated[float, Field(ge=-MAX_LOGIT_SCALE, le=MAX_LOGIT_SCALE)] = 0.0
    temperature: Annotated[float, Field(ge=1e-3, le=1e4)] = 1.0
    teacher: dict[str, str] = field(default_factory=dict)
    queries: dict[Text, Annotated[int, Field(ge=0)]] = field(default_factory=dict)
    scores: dict[Text, float] = field(default_factory=dict)
    target_domain: Text | None = None
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] = ""
    format: Literal[1] = 1

    def to_json(self) -> dict[str, Any]:
        """Return the card as JSON values."""
        return {"format": self.format, **vars(self), "student": self.student.to_json()}

    @classmethod
    def from_json(cls, data: bytes) -> "StudentCard":
        """Return the card of which `to_json` made the JSON values in `data`.

        Raises:
            DataError: It is no card, one of another version, or has an entry that no card has; the entry is named.
        """
        try:
            record = from_json(data)
        except ValueError as error:
            raise DataError(f"the student's card is not JSON ({error}): export the student again") from error
        if not isinstance(record, dict) or record.get("format") != 1:
            raise DataError("the student's card is not of format 1: use the version of vl2v that made it")
        return read_entry(cls, data)


def resolve_student(name: str, *, weights: Path | None = None, size: int | None = None) -> StudentSpec:
    """Find out everything about a student, without fetching its weights.

    Args:
        name: A packaged student, or a timm architecture, with or without a tag
            (`vit_small_patch16_224.augreg_in21k_ft_in1k`).
        weights: A local safetensors file with the weights, under timm's own names.
        size: Input size, instead of the one it was trained at.

    Raises:
        UsageError: No such architecture, no pretrained weights for it, a size that it cannot take, or a package with
            its weights that is not installed.
        DataError: The weights file cannot be read.
    """
    if size is not None and not 1 <= size <= MAX_IMAGE_SIZE:
        raise UsageError(f"no student takes images of {size} pixels: choose a size from 1 to {MAX_IMAGE_SIZE}")
    if name in (TINY, LITE0):
        if weights is not None:
            raise UsageError(f"the student {name!r} brings its own weights: leave the weights file out")
        return _tiny_student(size) if name == TINY else _lite0_student(size or LITE0_SIZE)
    config = _pretrained_config(name)
    if weights is None and not config.has_weights:
        raise UsageError(f"timm has no pretrained weights for {name!r}: choose another student, or give a weights file")
    trained_size = int(config.input_size[-1])
    arguments = {"img_size": size} if size not in (None, trained_size) and config.fixed_input_size else {}
    architecture = name.partition(".")[0]
    return StudentSpec(
        architecture=architecture,
        arguments=arguments,
        input=InputFormat(size or trained_size, _triple(config.mean), _triple(config.std), config.interpolation),
        features=_feature_width(architecture, arguments, size or trained_size),
        tag=None if weights is not None else config.tag,
        weights=weights,
        weights_sha256=None if weights is None else _file_sha(weights),
    )


def _lite0_student(size: int) -> StudentSpec:
    return StudentSpec(
        architecture=LITE0_ARCHITECTURE,
        input=InputFormat(size, LITE0_MEAN, LITE0_STD, "bicubic"),
        features=_feature_width(LITE0_ARCHITECTURE, {}, size),
        weights=lite0_weights(),
        weights_sha256=LITE0_SHA256,
    )


def _tiny_student(size: int | None) -> StudentSpec:
    weights, card = tiny_weights()
    if _file_sha(weights) != card["weights_sha256"]:
        raise DataError(f"{weights} is damaged: its SHA-256 is not the one on its card; install vl2v again")
    spec = StudentSpec(
        architecture=card["architecture"],
        arguments=card["arguments"],
        input=InputFormat(
            card["input_size"], _triple(card["mean"]), _triple(card["std"]), card.get("interpolation", "bicubic")
        ),
        features=card["features"],
        weights=weights,
        weights_sha256=card["weights_sha256"],
    )
    if size is None or size == spec.input.size:
        return spec
    arguments = {**spec.arguments, "img_size": size}
    _feature_width(spec.architecture, arguments, size)
    return replace(spec, input=replace(spec.input, size=size), arguments=arguments)


def _feature_width(architecture: str, arguments: Mapping[str, Any], size: int) -> int:
    """Return the number of features `F` of a picture; one is tried, without memory, before anything is bought."""
    try:
        with torch.device("meta"):
            backbone = timm.create_model(architecture, num_classes=0, **arguments)
        shape = try_backbone(backbone, size)
    except (TypeError, ValueError, RuntimeError, AssertionError, ArithmeticError, LookupError) as error:
        told = f" with {dict(arguments)}" if arguments else ""
        raise UsageError(f"timm cannot run {architecture!r}{told} at {size} pixels: {error}") from error
    found: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    width = int(found)
    if shape != (1, width):
        raise UsageError(f"{architecture!r} gives features of shape {shape}, not (1, {width}): choose another student")
    return width


def _pretrained_config(name: str) -> Any:
    """Return timm's `PretrainedCfg` of a model name, with or without a tag."""
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        close = timm.list_models(f"{name}*")[:3] or difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"the packaged students are {TINY!r} and {LITE0!r}"
        raise UsageError(f"timm has no model {name!r}: {hint}")
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # timm's answer to a tag that it does not know
        tags = ", ".join(timm.list_pretrained(f"{architecture}.*"))
        raise UsageError(f"timm has no pretrained model {name!r}; it has: {tags}") from error
    if config is None:
        raise UsageError(f"timm does not say what input {name!r} was trained on: choose another student")
    return config


def _file_sha(path: Path) -> str:
    try:
        return sha256_hex(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): give the path of a safetensors file") from error


def _triple(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
