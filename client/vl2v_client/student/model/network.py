"""The student: `z = W f(x) + b`, a timm backbone and a linear projection to the teacher's width.

A backbone may be cut into two parts that share its weights: its first blocks, and the rest, which is fed what they
return. The blocks are those of timm's `group_matcher(coarse=True)`: first the stem, then the blocks of a ViT or the
stages of a convolutional network.
"""

import io
import pickle  # nosec B403 # for its error
import warnings
from collections.abc import Collection, Iterator
from copy import copy
from itertools import takewhile
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import group_parameters
from torch import Tensor, nn

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.core.files import open_regular
from vl2v_client.local.teacher import build_tower
from vl2v_client.student.model.packaged import LITE0_BYTES, LITE0_SHA256
from vl2v_client.student.model.spec import StudentSpec
from vl2v_contract.identity import sha256_hex

NOT_WEIGHTS = "num_batches_tracked"
"""BatchNorm's step counter: some files leave it out, and nothing here reads it."""


class Student(nn.Module):
    """A backbone `f` and a projection to the width that its objective needs.

    Args:
        backbone: Maps `[B, 3, S, S]` to pooled features `[B, F]`.
        projection: To the teacher's width `D`, or to the classes for a linear head.
    """

    def __init__(self, backbone: nn.Module, projection: nn.Linear) -> None:
        super().__init__()
        self.backbone = backbone
        self.projection = projection

    def features(self, inputs: Tensor) -> Tensor:
        """Return `[B, 3, S, S]` float32, normalised, to `[B, F]`."""
        return cast(Tensor, self.backbone(inputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `[B, 3, S, S]` float32, normalised, to `z [B, D]`, of any length."""
        return cast(Tensor, self.projection(self.features(inputs)))

    def train(self, mode: bool = True) -> "Student":
        """Switch the mode, with BatchNorm kept in evaluation: its statistics stay the pretrained ones.

        As published for ResNet-50. A batch of one style would otherwise pull the statistics towards that style.
        """
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def build_student(spec: StudentSpec, *, outputs: int, seed: int) -> Student:
    """Return a student with its first weights: the backbone's as `spec` says, the projection's drawn from `seed`.

    Raises:
        DataError: The weights cannot be fetched, or do not fit the architecture.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Student(build_backbone(spec), nn.Linear(spec.features, outputs))


def empty_student(spec: StudentSpec, *, outputs: int) -> Student:
    """Return a student with random weights, to be filled from a file.

    Raises:
        UsageError: It is an image tower, and open_clip is not installed.
        DataError: The installed version of open_clip cannot build it.
    """
    if spec.tower is not None:
        return Student(*build_tower(spec.tower))
    return Student(build_backbone(spec, pretrained=False), nn.Linear(spec.features, outputs))


def build_backbone(spec: StudentSpec, *, pretrained: bool = True) -> nn.Module:
    """Return the backbone, `[B, 3, S, S]` to `[B, F]`, without a classifier.

    Unless it is `pretrained`, or if `spec` names no weights, they are random.

    Raises:
        DataError: The weights cannot be fetched, or do not fit the architecture.
    """
    if pretrained and spec.weights is not None:
        return _load_lite0(spec, spec.weights) if spec.weights_sha256 == LITE0_SHA256 else _load_local(spec)
    if pretrained and spec.tag is not None:
        return _fetch(spec)
    return timm.create_model(spec.architecture, num_classes=0, **spec.arguments)


def _fetch(spec: StudentSpec) -> nn.Module:
    name = f"{spec.architecture}.{spec.tag}" if spec.tag else spec.architecture
    try:
        return timm.create_model(name, pretrained=True, num_classes=0, **spec.arguments)
    except Exception as error:  # the hub's client raises its own, httpx's, urllib's and OSError
        raise DataError(
            f"the weights of {name!r} cannot be fetched ({type(error).__name__}): "
            "check the network, or give a local safetensors file"
        ) from error


def _load_lite0(spec: StudentSpec, path: Path) -> nn.Module:
    """Load the packaged EfficientNet-lite0, once its file is known by its hash."""
    try:
        with open_regular(path, LITE0_BYTES) as file:
            data = file.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): install its package again") from error
    if sha256_hex(data) != LITE0_SHA256:
        raise DataError(f"{path} is not the file that it was released as (SHA-256): install its package again")
    try:
        stored: dict[str, Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        backbone = timm.create_model(spec.architecture, num_classes=0, **spec.arguments)
        # the same tensors in the same order, under the names of an older library; the classifier's two come last
        backbone.load_state_dict(dict(zip(backbone.state_dict(), stored.values(), strict=False)))
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise DataError(f"{path} does not fit timm's {spec.architecture!r} ({error}): install another timm") from error
    return backbone


def _load_local(spec: StudentSpec) -> nn.Module:
    """Load a file of timm's names; timm itself resamples position embeddings to another input size."""
    overlay = {"file": str(spec.weights), "custom_load": False}
    try:
        with safe_open(str(spec.weights), framework="pt") as file:
            stored = set(file.keys())
        backbone = timm.create_model(
            spec.architecture, pretrained=True, pretrained_cfg_overlay=overlay, num_classes=0, **spec.arguments
        )
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise DataError(
            f"{spec.weights} does not hold the weights of timm's {spec.architecture!r} ({reason}): "
            "give a safetensors file saved from that model"
        ) from error
    wanted = {name for name in backbone.state_dict() if not name.endswith(NOT_WEIGHTS)}
    missing = sorted(wanted - stored)
    if missing:
        raise DataError(
            f"{spec.weights} lacks {len(missing)} of the {len(wanted)} weights of timm's {spec.architecture!r}, "
            f"such as {', '.join(missing[:3])}: give a file with timm's own names"
        )
    return backbone


def compile_or_warn(network: nn.Module, inputs: Tensor, *, bfloat16: bool) -> nn.Module:
    """Return the network compiled, or as it is, with a warning, if a first step forward and backward with it fails.

    Takes the inputs of one step, since the compiled code is for one shape. Gradients are empty before and after.
    """
    try:
        compiled = cast(nn.Module, torch.compile(network))
        with torch.random.fork_rng(devices=[inputs.device] if inputs.is_cuda else []):
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=bfloat16):
                outputs = compiled(inputs)
            outputs.float().sum().backward()
    except Exception as error:  # whatever the compiler, its C++ compiler or Triton raises
        reason = str(error).strip().partition("\n")[0]
        warnings.warn(
            f"torch.compile does not work here ({type(error).__name__}: {reason}): going on without it", stacklevel=2
        )
        compiled = network
    finally:
        network.zero_grad(set_to_none=True)
    return compiled


def frozen_names(backbone: nn.Module, count: int) -> frozenset[str]:
    """Return the names of the parameters in the first `count` blocks."""
    return frozenset(name for block in _blocks(backbone)[:count] for name in block) if count else frozenset()


def cut_backbone(backbone: nn.Module, count: int) -> tuple[nn.Module, nn.Module]:
    """Return the first `count` blocks, `[B, 3, S, S]` to activations, and the rest, from these to features `[B, F]`."""
    units = list(_units(backbone, frozen_names(backbone, count)))
    first = {name for name, _ in takewhile(lambda unit: unit[1], units)}
    lower: Any = _without(backbone, {name for name, _ in units} - first)
    lower.forward = lower.forward_features
    upper: Any = _without(backbone, first)
    if hasattr(upper, "_pos_embed"):  # timm's ViTs: a part of the stem that is no module
        upper._pos_embed = nn.Identity().forward
    return lower, upper


def check_cut(name: str, spec: StudentSpec, count: int) -> None:
    """Cut a student of random weights, and compare what the two parts return with what the whole does.

    Args:
        name: Name of the student in errors.
        spec: Student.
        count: Number of blocks to freeze; 0 is always possible.

    Raises:
        UsageError: It has too few blocks, or cannot be cut there.
    """
    if count == 0:
        return
    refusal = UsageError(f"training.freeze_until {count}: {name!r} cannot be cut there: leave the option out")
    if spec.tower is not None:
        raise refusal
    backbone = build_backbone(spec, pretrained=False)
    blocks = len(_blocks(backbone))
    if 2 <= blocks <= count:
        raise UsageError(
            f"training.freeze_until {count}: {name!r} has {blocks} blocks, the stem included, and the last must train: "
            f"choose at most {blocks - 1}"
        )
    if blocks < 2 or not _can_be_cut(backbone, spec.input.size, count):
        raise refusal


def half_of(spec: StudentSpec) -> int:
    """Return half the number of a student's blocks; 0 where it cannot be cut."""
    backbone = build_backbone(spec, pretrained=False)
    count = len(_blocks(backbone)) // 2
    return count if count and _can_be_cut(backbone, spec.input.size, count) else 0


@torch.no_grad()
def _can_be_cut(backbone: nn.Module, size: int, count: int) -> bool:
    backbone.eval()
    images = torch.linspace(-1, 1, 3 * size**2).view(1, 3, size, size)
    try:
        lower, upper = cut_backbone(backbone, count)
        return torch.equal(upper(lower(images)), backbone(images))
    except Exception:  # whatever the parts raise that do not fit
        return False


def _blocks(backbone: nn.Module) -> list[list[str]]:
    matcher: Any = getattr(backbone, "group_matcher", None)
    return [] if matcher is None else list(group_parameters(backbone, matcher(coarse=True)).values())


def _units(module: nn.Module, frozen: Collection[str], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Yield the largest modules that are frozen or not as a whole, in their order, and whether they are."""
    for name, child in module.named_children():
        are_frozen = {f"{prefix}{name}.{parameter}" in frozen for parameter, _ in child.named_parameters()}
        if len(are_frozen) > 1:
            yield from _units(child, frozen, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", False not in are_frozen


def _without(module: nn.Module, names: Collection[str], prefix: str = "") -> nn.Module:
    """Return a copy that shares the weights and passes its input through the modules of those names."""
    shared = copy(module)
    shared._modules = {}
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        is_parent = any(other.startswith(f"{path}.") for other in names)
        shared._modules[name] = nn.Identity() if path in names else child
        if is_parent:
            shared._modules[name] = _without(child, names, f"{path}.")
    return shared
