"""Precision is what was configured, and is said aloud; CUDA's branches run on a device that only claims to be there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.vendor.tiny_clip import write_tiny_clip
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.engine.models.open_clip_files import ModelSpec
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
TOKENS = np.array([[49406, 320, 1125, 49407]])


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    return write_tiny_clip(tmp_path)


@dataclass
class FakeCuda:
    """A CUDA device that is the CPU in truth, and what was asked of it."""

    moved_modules: int = 0
    pinned: int = 0
    batches: list[tuple[torch.dtype, bool]] = field(default_factory=list)
    autocasts: list[tuple[str, torch.dtype]] = field(default_factory=list)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    move_tensor, move_module, autocast = torch.Tensor.to, torch.nn.Module.to, torch.autocast

    def is_cuda(arguments: tuple[Any, ...]) -> bool:
        return bool(arguments) and isinstance(arguments[0], torch.device) and arguments[0].type == "cuda"

    def to_tensor(tensor: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        if not is_cuda(arguments):
            return move_tensor(tensor, *arguments, **options)
        fake.batches.append((tensor.dtype, options.get("non_blocking", False)))
        return tensor

    def to_module(module: torch.nn.Module, *arguments: Any, **options: Any) -> torch.nn.Module:
        if not is_cuda(arguments):
            return move_module(module, *arguments, **options)
        fake.moved_modules += 1
        return module

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        fake.pinned += 1
        return tensor

    @contextmanager
    def cast(device: str, dtype: torch.dtype) -> Iterator[None]:
        fake.autocasts.append((device, dtype))
        with autocast("cpu", dtype=torch.bfloat16):
            yield

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", to_tensor)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.nn.Module, "to", to_module)
    monkeypatch.setattr(torch, "autocast", cast)
    return fake


def test_a_cuda_device_is_taken_when_there_is_one_and_runs_fp16(spec: ModelSpec, cuda: FakeCuda) -> None:
    model = OpenClipModel(replace(spec, device="auto"))
    assert (model.info.device, model.info.precision) == ("cuda", "fp16")
    assert cuda.moved_modules == 2  # both towers
    cuda.batches.clear()
    cuda.autocasts.clear()
    images, texts = model.encode_images(PIXELS), model.encode_tokens(TOKENS)
    assert cuda.autocasts == [("cuda", torch.float16)] * 2
    # Pixels cross to the device as bytes, from pinned memory, without waiting.
    assert cuda.batches == [(torch.uint8, True), (torch.int64, True)]
    assert cuda.pinned >= 2
    for vectors in (images, texts):
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_a_configured_precision_holds_on_cuda(
    spec: ModelSpec, cuda: FakeCuda, precision: Any, dtype: torch.dtype
) -> None:
    model = OpenClipModel(replace(spec, device="cuda:1", precision=precision))
    model.encode_images(PIXELS)
    assert (model.info.device, model.info.precision) == ("cuda:1", precision)
    assert set(cuda.autocasts) == {("cuda", dtype)}


def test_fp32_on_cuda_is_not_cast(spec: ModelSpec, cuda: FakeCuda) -> None:
    model = OpenClipModel(replace(spec, device="cuda", precision="fp32"))
    model.encode_images(PIXELS)
    assert model.info.precision == "fp32"
    assert cuda.autocasts == []


def test_fp32_is_the_default_without_cuda(spec: ModelSpec) -> None:
    assert OpenClipModel(replace(spec, device="auto")).info.device in ("cpu", "cuda")
    assert OpenClipModel(spec).info.precision == "fp32"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_one_item_alone_is_what_it_is_in_a_batch(spec: ModelSpec, precision: Any) -> None:
    model = OpenClipModel(replace(spec, precision=precision))
    together = model.encode_images(PIXELS)
    alone = np.concatenate([model.encode_images(image[None]) for image in PIXELS])
    assert (together * alone).sum(axis=1).min() > 0.9999


def test_torch_compile_fuses_the_image_tower_alone(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def compile_(tower: torch.nn.Module, *, dynamic: bool) -> Any:
        assert dynamic  # batches have many sizes, and each would be compiled anew

        def compiled(pixels: torch.Tensor) -> torch.Tensor:
            calls.append(type(tower).__name__)
            return tower(pixels)

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    model = OpenClipModel(replace(spec, compile=True))
    calls.clear()
    found = model.encode_images(PIXELS)
    model.encode_tokens(TOKENS)
    assert calls == ["ImageTower"]
    np.testing.assert_allclose(found, OpenClipModel(spec).encode_images(PIXELS), atol=1e-6)


def test_a_compiler_that_fails_is_named(spec: ModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_(tower: torch.nn.Module, *, dynamic: bool) -> Any:
        def compiled(pixels: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no C++ compiler\nand a page of advice")

        return compiled

    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(
        ModelLoadFailed, match=r"tiny-clip cannot encode .* fp32 on cpu: RuntimeError: no C\+\+ compiler$"
    ):
        OpenClipModel(replace(spec, compile=True))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_on_a_real_device_is_close_to_fp32(spec: ModelSpec, precision: Any) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    exact = OpenClipModel(spec)
    half = OpenClipModel(replace(spec, device="cuda", precision=precision))
    for found, expected in (
        (half.encode_images(PIXELS), exact.encode_images(PIXELS)),
        (half.encode_tokens(TOKENS), exact.encode_tokens(TOKENS)),
    ):
        assert (found * expected).sum(axis=1).min() >= 0.9995
