"""The model process: same vectors, failures reported, death survived, no orphan left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from tiny_clip import ChangingModel, FragileModel, die_while_loading, load_nothing, write_tiny_clip
from vl2v_vendor.adapters.model_process import ProcessEncoder
from vl2v_vendor.adapters.model_worker import LoadModel
from vl2v_vendor.adapters.open_clip_model import OpenClipModel
from vl2v_vendor.domain.errors import EncodingFailed, ModelLoadFailed, ModelUnavailable

T = TypeVar("T")


def run(load: LoadModel, story: Callable[[ProcessEncoder], Awaitable[T]]) -> T:
    async def told() -> T:
        encoder = ProcessEncoder(load, first_delay_seconds=0.01)
        await encoder.start()
        try:
            return await story(encoder)
        finally:
            await encoder.close()

    return asyncio.run(told())


def image(level: int) -> np.ndarray:
    return np.full((1, 2, 2, 3), level, dtype=np.uint8)


async def until_ready(encoder: ProcessEncoder) -> None:
    async with asyncio.timeout(60):
        while not encoder.ready:
            await asyncio.sleep(0.01)


def test_a_real_model_gives_the_same_vectors_as_in_this_process(tmp_path: Path) -> None:
    load = partial(OpenClipModel, write_tiny_clip(tmp_path))
    local = load()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    tokens = np.array([[49406, 320, 49407], [49406, 1929, 49407]])

    async def story(encoder: ProcessEncoder) -> None:
        assert encoder.info == local.info
        both = await asyncio.gather(encoder.encode_images(pixels), encoder.encode_tokens(tokens))
        np.testing.assert_allclose(both[0], local.encode_images(pixels), atol=1e-6)
        np.testing.assert_allclose(both[1], local.encode_tokens(tokens), atol=1e-6)

    run(load, story)


def test_a_model_that_cannot_be_loaded_says_why() -> None:
    async def start(load: LoadModel) -> None:
        encoder = ProcessEncoder(load)
        with pytest.raises(ModelUnavailable):
            _ = encoder.info
        await encoder.start()

    with pytest.raises(ModelLoadFailed, match="no such checkpoint, injected"):
        asyncio.run(start(load_nothing))
    with pytest.raises(ModelLoadFailed, match="exit code 9"):
        asyncio.run(start(die_while_loading))


def test_a_failing_batch_fails_alone_and_a_dead_child_is_replaced() -> None:
    async def story(encoder: ProcessEncoder) -> None:
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
        await until_ready(encoder)
        assert encoder.process_id != first
        assert (await encoder.encode_images(image(7))).shape == (1, 4)

    run(FragileModel, story)


def test_another_model_is_not_sold_under_the_same_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changed = tmp_path / "changed"

    async def story(encoder: ProcessEncoder) -> None:
        changed.touch()
        with pytest.raises(ModelUnavailable):
            await encoder.encode_images(image(255))
        async with asyncio.timeout(60):
            while "files changed" not in caplog.text:
                await asyncio.sleep(0.01)
        assert not encoder.ready
        changed.unlink()
        await until_ready(encoder)

    run(partial(ChangingModel, changed), story)


def test_ctrl_c_in_the_terminal_does_not_end_the_child() -> None:
    async def story(encoder: ProcessEncoder) -> None:
        assert encoder.process_id is not None
        os.kill(encoder.process_id, signal.SIGINT)
        assert (await encoder.encode_images(image(7))).shape == (1, 4)

    run(FragileModel, story)


def test_the_child_ends_when_its_parent_is_killed() -> None:
    script = textwrap.dedent(
        """
        import asyncio, os
        from tiny_clip import FragileModel
        from vl2v_vendor.adapters.model_process import ProcessEncoder

        async def main():
            encoder = ProcessEncoder(FragileModel)
            await encoder.start()
            print(encoder.process_id, flush=True)
            os.kill(os.getpid(), 9)

        if __name__ == "__main__":
            asyncio.run(main())
        """
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    # The child inherits standard output, so the pipe is at its end, and `run` returns, only when the child is gone too.
    finished = subprocess.run(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, timeout=60, check=False
    )
    assert finished.returncode == -signal.SIGKILL
    assert int(finished.stdout) > 0
