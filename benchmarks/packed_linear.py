"""What packed weights are worth: `PackedLinear` against `nn.Linear` at ViT-B/32's shapes, with and without AVX-512.

    python benchmarks/packed_linear.py

One thread, as a part of a large batch has; both variants in one process, turn by turn, in CPU time, which other work on
the machine disturbs less than the clock. A second process is kept from AVX-512 by environment variables of PyTorch,
oneDNN and MKL. That simulates a processor with AVX2 alone, and is none: caches and clock stay those of the machine.
Takes a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from result import write_result
from torch import nn

from vl2v_vendor.engine.models.packed_weights import PackedLinear

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
LAYERS = {
    "query, key, value": (768, 2304),
    "output": (768, 768),
    "MLP, first": (768, 3072),
    "MLP, second": (3072, 768),
}
"""Of a block: inputs and outputs."""
TOKENS = 50
"""Of an image: 7 x 7 patches and the class token."""
IMAGES = (1, 4, 16)
TURNS = 15


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--child", action="store_true", help="measure here, and print the rows as JSON")
    options.add_argument("--out", type=Path)
    chosen = options.parse_args()
    if chosen.child:
        print(json.dumps(measure()))
        return
    rows: list[dict[str, object]] = []
    for instructions, restriction in (("all", {}), ("AVX2, simulated", AVX2)):
        words = [sys.executable, __file__, "--child"]
        done = subprocess.run(words, env={**os.environ, **restriction}, stdout=subprocess.PIPE, text=True, check=True)
        rows += [{"instructions": instructions, **row} for row in json.loads(done.stdout)]
    notes = [
        "CPU time of the linear layers of one of ViT-B/32's twelve blocks, one thread, median of alternating turns.",
        f"AVX2 is simulated by {' '.join(f'{name}={value}' for name, value in AVX2.items())}.",
    ]
    write_result("packed_linear", rows, [], out=chosen.out, notes=notes)


@torch.inference_mode()
def measure() -> list[dict[str, object]]:
    """One row for each number of images: the layers of a block together."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rows: list[dict[str, object]] = []
    for images in IMAGES:
        plain = packed = 0.0
        ratios = []
        for width, outputs in LAYERS.values():
            layer = nn.Linear(width, outputs)
            inputs = torch.randn(images, TOKENS, width)
            mine, other = _alternate(lambda layer=layer, x=inputs: layer(x), _packed(layer, inputs))  # type: ignore[misc]
            plain, packed = plain + mine, packed + other
            ratios.append(f"{mine / other:.2f}")
        rows.append(
            {
                "torch": torch.backends.cpu.get_cpu_capability(),
                "images": images,
                "nn.Linear, ms": round(plain, 2),
                "packed, ms": round(packed, 2),
                "times as fast": round(plain / packed, 2),
                "layer by layer": ", ".join(ratios),
            }
        )
    return rows


def _packed(layer: nn.Linear, inputs: torch.Tensor) -> Callable[[], torch.Tensor]:
    packed = PackedLinear(layer.weight, layer.bias)
    return lambda: packed(inputs)


def _alternate(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Median CPU milliseconds of a call of each, in turns of at least 50 ms."""
    for call in (one, other):
        call()
    started = time.thread_time()
    one()
    calls = max(1, int(0.05 / max(1e-6, time.thread_time() - started)))
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(TURNS):
        for place in (0, 1) if turn % 2 else (1, 0):
            started = time.thread_time()
            for _ in range(calls):
                (one, other)[place]()
            seconds[place].append((time.thread_time() - started) / calls)
    return 1000 * median(seconds[0]), 1000 * median(seconds[1])


if __name__ == "__main__":
    main()
