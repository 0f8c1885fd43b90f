"""A backbone in two parts that share its weights: its first blocks, and the rest, which is fed what they return.

The blocks are those of timm's `group_matcher(coarse=True)`: first the stem, then the blocks of a ViT or the stages of a
convolutional network.
"""

from collections.abc import Collection, Iterator
from copy import copy
from itertools import takewhile
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from vl2v_client.core.errors import UsageError
from vl2v_client.student.model.network import build_backbone
from vl2v_client.student.model.spec import StudentSpec


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
    backbone, size = build_backbone(spec, pretrained=False).eval(), spec.input.size
    blocks = len(_blocks(backbone))
    if blocks < 2:
        raise refusal
    if count >= blocks:
        raise UsageError(
            f"training.freeze_until {count}: {name!r} has {blocks} blocks, the stem included, and the last must train: "
            f"choose at most {blocks - 1}"
        )
    try:
        lower, upper = cut_backbone(backbone, count)
        with torch.no_grad():
            images = torch.linspace(-1, 1, 3 * size**2).view(1, 3, size, size)
            is_the_same = torch.equal(upper(lower(images)), backbone(images))
    except Exception as error:  # whatever the parts raise that do not fit
        raise refusal from error
    if not is_the_same:
        raise refusal


def half_of(spec: StudentSpec) -> int:
    """Return half the number of a student's blocks; 0 where it cannot be cut."""
    count = len(_blocks(build_backbone(spec, pretrained=False))) // 2
    try:
        check_cut(spec.architecture, spec, count)
    except UsageError:
        return 0
    return count


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
