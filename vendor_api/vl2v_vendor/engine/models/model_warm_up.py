"""What a freshly loaded model is asked before it serves: how large a batch pays, and how long one takes.

Batches of 1, 2, 4, 8, ... items of the real shapes run a few times each, within a bounded time. The batch size is the
smallest whose rate is within two percent of the best, of those that take a second at most: a larger one would only make
everybody wait longer. Batches that take less than a twentieth of a second keep nobody waiting, whatever a noisy machine
says of their rates. The times tell later whether the model is stuck.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final, Protocol

import numpy as np

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed

_LARGEST_BATCH: Final = 256
_TOLERANCE: Final = 0.02
_HARMLESS_SECONDS, _LONGEST_SECONDS = 0.05, 1.0
_FEWEST_CALLS, _MOST_CALLS = 3, 20
_SHORTEST_SAMPLE, _LONGEST_SAMPLE = 0.04, 0.25
"""A size is tried the fewest times, and on until it has taken the one, but not once it has taken the other."""
_BUDGET_SINGLES: Final = 50
"""A lane is measured for as long as so many batches of one take, within the next two bounds."""
_SHORTEST_BUDGET, _LONGEST_BUDGET = 0.5, 8.0
_FEWEST_SIZES: Final = 5
_TYPICAL_TEXT: Final = 16
_MEMORY_PHRASES: Final = ("out of memory", "not enough memory", "can't allocate memory")


class LocalModel(Protocol):
    """A model loaded in this process."""

    info: ModelInfo

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """Encode N images `[S, S, 3]` of RGB8 to `[N, D]` float32, unit norm."""

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """Encode `[N, L]` token ids to `[N, D]` float32, unit norm."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Some calls with batches of one size, in seconds."""

    items: int
    fastest: float
    slowest: float

    @property
    def rate(self) -> float:
        """Items per second of the fastest call: what else ran on the machine does not count."""
        return self.items / self.fastest


@dataclass(frozen=True, slots=True)
class LanePace:
    """What was measured of one lane.

    Attributes:
        batch_items: Size of the batch with the best rate.
        slowest_seconds: (items, seconds) of the slowest call of each size up to that, sizes ascending.
    """

    batch_items: int
    slowest_seconds: tuple[tuple[int, float], ...]

    def seconds(self, items: int) -> float:
        """Return the slowest call of a batch of this size or the next larger one that was measured."""
        fitting = [seconds for size, seconds in self.slowest_seconds if size >= items]
        return min(fitting) if fitting else max(seconds for _, seconds in self.slowest_seconds)


def warm_up(model: LocalModel, batch_items: Mapping[Modality, int] | None) -> dict[Modality, LanePace]:
    """Run both towers until nothing about them is new, and measure them, at `batch_items` if those are decided.

    Raises:
        ModelLoadFailed: A decided size does not fit into memory.
    """
    length = model.info.context_length
    noise = lru_cache(maxsize=1)(partial(make_noise, model.info))  # made outside of the measured time

    def run_images(items: int) -> None:
        model.encode_images(noise(items))

    def run_texts(items: int, tokens: int = length) -> None:
        model.encode_tokens(np.ones((items, tokens), dtype=np.int64))

    if batch_items is not None:
        return {"image": _time(run_images, batch_items["image"]), "text": _time(run_texts, batch_items["text"])}
    captions = measure_pace(lambda items: run_texts(items, min(length, _TYPICAL_TEXT)))
    return {"image": measure_pace(run_images), "text": _time(run_texts, captions.batch_items, may_shrink=True)}


def make_noise(info: ModelInfo, items: int) -> PixelBatch:
    """Return `[items, S, S, 3]` of noise at the model's input size, the same each time."""
    return np.random.default_rng(0).integers(0, 256, (items, info.image_size, info.image_size, 3), dtype=np.uint8)


def measure_pace(run: Callable[[int], object], clock: Callable[[], float] = time.perf_counter) -> LanePace:
    """Try growing batches until that no longer pays, the time is up or memory is short.

    Args:
        run: Function that encodes a batch of so many items.
        clock: Clock in seconds.

    Raises:
        Exception: Any error of `run` but a want of memory.
    """
    run(1)  # the first call of all initialises lazily; its time says nothing
    samples = [_sample(run, 1, clock)]
    deadline = clock() + min(max(_BUDGET_SINGLES * samples[0].fastest, _SHORTEST_BUDGET), _LONGEST_BUDGET)
    while _may_pay(samples) and clock() + 2 * samples[-1].slowest <= deadline:
        try:
            samples.append(_sample(run, 2 * samples[-1].items, clock))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            break
    bearable = [sample for sample in samples if sample.items == 1 or sample.fastest <= _LONGEST_SECONDS]
    best = max(sample.rate for sample in bearable)
    chosen = next(sample.items for sample in bearable if sample.rate >= (1 - _TOLERANCE) * best)
    chosen = max([chosen, *(sample.items for sample in samples if sample.fastest <= _HARMLESS_SECONDS)])
    return LanePace(chosen, tuple((sample.items, sample.slowest) for sample in samples if sample.items <= chosen))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a smaller batch may pass where this one failed."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in _MEMORY_PHRASES)


def first_line(error: BaseException) -> str:
    """Return what an operator needs of a library's error, which may run to pages."""
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]


def release_memory() -> None:
    """Give the GPU memory that torch keeps for later back, so that the halves of a failed batch find some."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _may_pay(samples: Sequence[Sample]) -> bool:
    """Return whether a larger batch is worth trying: not after two doublings in a row that gained nothing."""
    if samples[-1].items >= _LARGEST_BATCH or len(samples) < _FEWEST_SIZES:
        return samples[-1].items < _LARGEST_BATCH
    before = max(sample.rate for sample in samples[:-2])
    return max(sample.rate for sample in samples[-2:]) > before * (1 + _TOLERANCE)


def _time(run: Callable[[int], object], items: int, *, may_shrink: bool = False) -> LanePace:
    """Return the pace at this batch size, or at the largest half of halves of it that fits into memory."""
    while True:
        try:
            samples = [_sample(run, size, time.perf_counter) for size in sorted({1, items})]
            return LanePace(items, tuple((sample.items, sample.slowest) for sample in samples))
        except Exception as error:
            if not is_out_of_memory(error) or (may_shrink and items == 1):
                raise
            if not may_shrink:
                raise ModelLoadFailed(
                    f"a batch of {items} items does not fit into memory; lower max_batch_items, or unset it to have "
                    "it measured"
                ) from error
        release_memory()
        items //= 2


def _sample(run: Callable[[int], object], items: int, clock: Callable[[], float]) -> Sample:
    seconds: list[float] = []
    while len(seconds) < _FEWEST_CALLS or (len(seconds) < _MOST_CALLS and sum(seconds) < _SHORTEST_SAMPLE):
        if sum(seconds) >= _LONGEST_SAMPLE:
            break
        started = clock()
        run(items)
        seconds.append(max(clock() - started, 1e-9))
    return Sample(items, min(seconds), max(seconds))
