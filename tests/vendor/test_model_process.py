"""The model process: same vectors, failures reported, death survived, no orphan left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from support.vendor.moody_models import BREAK, BREAK_SILENTLY, POISON, BrittleModel
from support.vendor.tiny_clip import ChangingModel, FragileModel, die_while_loading, load_nothing, write_tiny_clip
from support.waiting import until
from vl2v_vendor.domain.errors import EncodingFailed, ModelLoadFailed, ModelUnavailable
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.engine.process.model_process import ProcessEncoder
from vl2v_vendor.engine.process.model_worker import LoadModel, has_lost_device

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def open_encoder(load: LoadModel) -> AsyncIterator[ProcessEncoder]:
    encoder = ProcessEncoder(load, first_delay_seconds=0.01)
    await encoder.start()
    try:
        yield encoder
    finally:
        await encoder.close()


def image(level: int) -> np.ndarray:
    return np.full((1, 2, 2, 3), level, dtype=np.uint8)


async def test_a_real_model_gives_the_same_vectors_as_in_this_process(tmp_path: Path) -> None:
    load = partial(OpenClipModel, write_tiny_clip(tmp_path))
    local = load()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    tokens = np.array([[49406, 320, 49407], [49406, 1929, 49407]])

    async with open_encoder(load) as encoder:
        assert encoder.info == local.info
        both = await asyncio.gather(encoder.encode_images(pixels), encoder.encode_tokens(tokens))
        np.testing.assert_allclose(both[0], local.encode_images(pixels), atol=1e-6)
        np.testing.assert_allclose(both[1], local.encode_tokens(tokens), atol=1e-6)


@pytest.mark.parametrize(
    ("load", "reason"), [(load_nothing, "no such checkpoint, injected"), (die_while_loading, "exit code 9")]
)
async def test_a_model_that_cannot_be_loaded_says_why(load: LoadModel, reason: str) -> None:
    encoder = ProcessEncoder(load)
    with pytest.raises(ModelUnavailable):
        _ = encoder.info
    with pytest.raises(ModelLoadFailed, match=reason):
        await encoder.start()


async def test_a_failing_batch_fails_alone_and_a_dead_child_is_replaced() -> None:
    async with open_encoder(FragileModel) as encoder:
        with pytest.raises(EncodingFailed, match="out of memory, injected"):
            await encoder.encode_images(image(0))
        assert (await encoder.encode_images(image(7))).shape == (1, 4)
        first = encoder.process_id
        waiters = [encoder.encode_images(image(255)), encoder.encode_images(image(7))]
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(outcome, ModelUnavailable) for outcome in outcomes)
        assert not encoder.ready
        with pytest.raises(ModelUnavailable):
            await encoder.encode_images(image(7))
        assert encoder.info.embedding_dim == 4
        await until(lambda: encoder.ready)
        assert encoder.process_id != first
        assert (await encoder.encode_images(image(7))).shape == (1, 4)


async def test_a_model_that_lost_its_device_is_replaced_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    async with open_encoder(BrittleModel) as encoder:
        waiters = [encoder.encode_images(image(level)) for level in (BREAK, 3)]
        outcomes = await asyncio.gather(*waiters, return_exceptions=True)
        assert all(isinstance(outcome, ModelUnavailable) for outcome in outcomes), outcomes
        assert not encoder.ready
        await until(lambda: encoder.ready)
        await encoder.encode_images(image(3))
        assert encoder.restarts == 1
    assert (
        "its model is broken: RuntimeError: CUDA error: an illegal memory access was encountered\n"
        in capfd.readouterr().err
    )


async def test_a_model_that_fails_at_everything_is_replaced() -> None:
    async with open_encoder(BrittleModel) as encoder:
        for level in [BREAK_SILENTLY, *range(1, 7)]:
            with pytest.raises(EncodingFailed, match="no convolution fits"):
                await encoder.encode_images(image(level))
            await encoder.encode_tokens([np.arange(1, 3)])  # the other lane's success says nothing of this one
        with pytest.raises(ModelUnavailable):
            await encoder.encode_images(image(7))
        await until(lambda: encoder.ready)
        await encoder.encode_images(image(3))
        assert encoder.restarts == 1


async def test_items_that_fail_never_cost_a_model_however_many_they_are() -> None:
    async with open_encoder(BrittleModel) as encoder:
        before = encoder.process_id
        for _ in range(40):
            with pytest.raises(EncodingFailed, match="poison"):
                await encoder.encode_images(image(POISON))
        await encoder.encode_images(image(3))
        assert (encoder.process_id, encoder.restarts) == (before, 0)


@pytest.mark.parametrize(
    ("error", "is_lost"),
    [
        (RuntimeError("CUDA error: device-side assert triggered"), True),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), True),
        (RuntimeError("CUDA error: out of memory"), False),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), False),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), False),
        (RuntimeError("the size of tensor a must match"), False),
        (ValueError("a text about a CUDA error"), False),
    ],
)
def test_a_lost_device_is_told_from_other_failures(error: Exception, is_lost: bool) -> None:
    assert has_lost_device(error) is is_lost


def test_torchs_own_error_of_a_device_is_known_whatever_it_says() -> None:
    torch = pytest.importorskip("torch")
    if not hasattr(torch, "AcceleratorError"):
        pytest.skip("this version of torch has no such error")
    assert has_lost_device(torch.AcceleratorError("the device is gone"))
    assert not has_lost_device(torch.AcceleratorError("CUDA error: out of memory"))


async def test_another_model_is_not_sold_under_the_same_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = tmp_path / "changed"

    async with open_encoder(partial(ChangingModel, changed)) as encoder:
        changed.touch()
        with pytest.raises(ModelUnavailable):
            await encoder.encode_images(image(255))
        async with asyncio.timeout(60):
            while "files changed" not in caplog.text:
                await asyncio.sleep(0.01)
        assert not encoder.ready
        changed.unlink()
        await until(lambda: encoder.ready)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_to_the_whole_process_group_does_not_end_the_child(number: signal.Signals) -> None:
    async with open_encoder(FragileModel) as encoder:
        assert encoder.process_id is not None
        os.kill(encoder.process_id, number)
        await asyncio.sleep(0.1)
        assert (await encoder.encode_images(image(7))).shape == (1, 4)
        assert encoder.restarts == 0


@pytest.mark.parametrize(
    ("end", "code"), [("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL), ("sys.exit(5)", 5)]
)
def test_the_child_ends_when_its_parent_is_killed_or_forgets_it(end: str, code: int) -> None:
    script = textwrap.dedent(
        f"""
        import asyncio, os, signal, sys
        from support.vendor.tiny_clip import FragileModel
        from vl2v_vendor.engine.process.model_process import ProcessEncoder

        async def main():
            encoder = ProcessEncoder(FragileModel)
            await encoder.start()
            print(encoder.process_id, flush=True)
            {end}

        if __name__ == "__main__":
            asyncio.new_event_loop().run_until_complete(main())
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # The child inherits standard output, so the pipe is at its end, and `run` returns, only when the child is gone too.
    finished = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert finished.returncode == code
    assert int(finished.stdout) > 0
