"""What a student's card may say: the entries that vl2v writes, each with its type and range, and nothing else.

A card may come from a stranger, and its entries reach the builders of timm and open_clip, which open files and fetch
from the network if they are asked to. No entry that asks for it passes.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from vl2v_client.core.errors import DataError
from vl2v_client.core.values import MAX_IMAGE_SIZE, MAX_WIDTH
from vl2v_contract.texts import printable

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class _Strict(BaseModel):
    model_config = STRICT


def _known_to_timm(name: str) -> str:
    """Return a plain name of timm's registry: no tag, no hub, no folder."""
    import timm  # and with it torch, which a plan of queries does not need

    if not (re.fullmatch(r"[a-z0-9_]{1,100}", name) and timm.is_model(name)):
        raise ValueError("timm has no model of this name")
    return name


Architecture = Annotated[str, Field(max_length=100), AfterValidator(_known_to_timm)]
Size = Annotated[int, Field(ge=1, le=MAX_IMAGE_SIZE)]
PatchSize = Annotated[int, Field(ge=1, le=128)]
Width = Annotated[int, Field(ge=1, le=8_192)]
Depth = Annotated[int, Field(ge=1, le=128)]
Heads = Annotated[int, Field(ge=1, le=256)]
Ratio = Annotated[float, Field(gt=0, le=16)]
Share = Annotated[float, Field(ge=0, le=1)]
Features = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
Mean = Annotated[float, Field(ge=-1_000, le=1_000)]
Deviation = Annotated[float, Field(ge=1e-4, le=1_000)]
Text = Annotated[str, Field(max_length=10_000)]
_Entry = TypeVar("_Entry")


class BackboneArguments(_Strict):
    """Arguments of `timm.create_model`: the numbers of a ViT, of which vl2v itself writes all but the last."""

    img_size: Size = 224
    patch_size: PatchSize = 16
    embed_dim: Width = 192
    depth: Depth = 12
    num_heads: Heads = 3
    mlp_ratio: Ratio = 4.0


@dataclass(frozen=True, slots=True)
class InputFormat:
    """What a student wants to see: the normalisation is its own, never the teacher's."""

    __pydantic_config__ = STRICT

    size: Size
    mean: tuple[Mean, Mean, Mean]
    std: tuple[Deviation, Deviation, Deviation]
    interpolation: Literal["bilinear", "bicubic"]


class NormArguments(_Strict):
    """Arguments of a tower's LayerNorm."""

    eps: Annotated[float, Field(gt=0, le=1)]


class ActivationArguments(_Strict):
    """Arguments of a tower's GELU."""

    approximate: Literal["none", "tanh"]


class VisionConfig(_Strict):
    """open_clip's `CLIPVisionCfg` of a tower that ends in a linear projection."""

    image_size: Size | Annotated[list[Size], Field(min_length=2, max_length=2)] = 224
    layers: Depth = 12
    width: Width = 768
    head_width: Width = 64
    mlp_ratio: Ratio = 4.0
    patch_size: PatchSize | None = 16
    ls_init_value: Annotated[float, Field(ge=-1_000, le=1_000)] | None = None
    patch_dropout: Share = 0.0
    attentional_pool: bool = False
    attn_pooler_queries: Width = 256
    attn_pooler_heads: Heads = 8
    no_ln_pre: bool = False
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    final_ln_after_pool: bool = False
    pool_type: Literal["tok", "avg"] = "tok"
    output_tokens: bool = False
    act_kwargs: ActivationArguments | None = None
    norm_kwargs: NormArguments | None = None
    block_type: Literal["default", "custom"] | None = None
    qk_norm: bool = False
    scaled_cosine_attn: bool = False
    scale_heads: bool = False
    scale_attn_inner: bool = False
    scale_attn: bool = False
    scale_fc: bool = False
    timm_model_name: Architecture | None = None
    timm_model_pretrained: Literal[False] = False
    timm_pool: Literal["", "avg", "max", "token", "map", "abs_attn", "rot_attn"] = "avg"
    timm_proj: Literal["linear", "mlp", "none", ""] | None = "linear"
    timm_proj_bias: bool = False
    timm_drop: Share = 0.0
    timm_drop_path: Share | None = None


class TowerEntry(_Strict):
    """What `local.teacher.tower_config` gives."""

    embed_dim: Features
    vision_cfg: VisionConfig
    quick_gelu: bool = False


class StudentEntry(_Strict):
    """`student.model.spec.StudentSpec`, as a card has it.

    The architecture of an open_clip tower is a text for people and builds nothing.
    """

    open_clip: TowerEntry | None = None
    architecture: Text
    arguments: BackboneArguments
    features: Features
    input: InputFormat
    initial_weights: Text | None = None
    needs: Text | None = None

    @field_validator("architecture")
    @classmethod
    def _check_architecture(cls, name: str, info: ValidationInfo) -> str:
        return _known_to_timm(name) if info.data.get("open_clip") is None else name

    @field_validator("arguments")
    @classmethod
    def _check_arguments(cls, arguments: BackboneArguments, info: ValidationInfo) -> BackboneArguments:
        if info.data.get("open_clip") is not None and arguments.model_fields_set:
            raise ValueError("an open_clip tower takes no arguments")
        return arguments


def read_entry(model: type[_Entry], data: bytes | str) -> _Entry:
    """Return a card, or a part of one, of its JSON.

    Raises:
        DataError: It has an entry that no card has; the entry is named.
    """
    try:
        return TypeAdapter(model).validate_json(data)
    except ValidationError as error:
        entry, reason = _first_fault(error)
        raise DataError(
            f"the student's card is refused: `{entry}` ({reason}): correct it, or export the student again"
        ) from error


def _first_fault(error: ValidationError) -> tuple[str, str]:
    """Return the first entry at fault, and what is wrong with it."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    # A union adds the name of a type to the entry's own.
    entry = printable(".".join(str(part) for part in fault["loc"] if "-" not in str(part)))[:120]
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return entry, "no card has this entry"
    reason = fault["msg"].removeprefix("Value error, ")
    return entry, reason[:1].lower() + reason[1:]
