"""`torch.compile` where it works."""

from __future__ import annotations

import warnings
from typing import cast

import torch
from torch import Tensor, nn


def compile_or_warn(network: nn.Module, inputs: Tensor, *, bfloat16: bool) -> nn.Module:
    """Return the network compiled, or as it is, with a warning, if a first step forward and backward with it fails.

    Args:
        network: Some of its parameters train; their gradients are empty before and after.
        inputs: Inputs of one step, since the compiled code is for one shape.
        bfloat16: The forward pass runs under autocast.
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
