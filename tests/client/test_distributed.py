"""Several processes train as one: the same samples, the same gradients, and none waits for the dead."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import training_child
from training_child import Result, train_watched
from vl2v_client.core.errors import RunError, UsageError
from vl2v_client.student.distributed import Ranks, is_first_process

CHILD = Path(training_child.__file__)
SECONDS = 120


def _environment() -> dict[str, str]:
    paths = [str(CHILD.parent), *sys.path]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def _torchrun(folder: Path, processes: int) -> list[Result]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launcher, str(CHILD), str(folder)], env=_environment(), capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    return _results(folder, processes)


def _start_by_hand(folder: Path, words: Sequence[str] = ()) -> list[tuple[int, str]]:
    """Two processes without a launcher that would end one when the other dies; returns exit codes and messages."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    children = [
        subprocess.Popen(
            [sys.executable, str(CHILD), str(folder), *words],
            env=_environment() | meeting | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    try:
        return [(child.wait(SECONDS), child.communicate()[1]) for child in children]
    finally:
        for child in children:
            child.kill()


def _results(folder: Path, processes: int) -> list[Result]:
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(processes)]


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_make_the_gradients_and_the_student_of_one(tmp_path: Path, processes: int) -> None:
    alone = train_watched(None)
    results = _torchrun(tmp_path, processes)
    for result in results:
        for own, single in zip(result["gradients"], alone["gradients"], strict=True):
            for gradient, expected in zip(own, single, strict=True):
                assert (gradient - expected).abs().max() < 1e-6
        assert result["accuracy"] == alone["accuracy"] == 1.0
        losses = [row["loss"] for row in result["history"]]
        assert losses == pytest.approx([row["loss"] for row in alone["history"]], abs=1e-4)
        assert result["history"] == results[0]["history"]
        for name, value in result["weights"].items():
            assert torch.equal(value, results[0]["weights"][name])
            assert (value - alone["weights"][name]).abs().max() < 1e-3


@pytest.mark.skip(reason="one run in a few, the process that is left waits for its 30 minute timeout: to be mended")
def test_a_dead_process_ends_the_others_and_the_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    assert [code for code, _ in _start_by_hand(calm)] == [0, 0]

    (code, said), (died, _) = _start_by_hand(stormy, ["1", "42"])
    assert (code, died) == (RunError.exit_code, 9), said
    assert "another process of this run has ended" in said
    assert (stormy / "checkpoints" / "distill.pt").exists()

    assert [code for code, _ in _start_by_hand(stormy)] == [0, 0]
    undisturbed, resumed = _results(calm, 2), _results(stormy, 2)
    for before, after in zip(undisturbed, resumed, strict=True):
        assert all(torch.equal(value, after["weights"][name]) for name, value in before["weights"].items())
    assert (calm / "metrics.jsonl").read_text() == (stormy / "metrics.jsonl").read_text()


def test_the_parts_of_a_step_are_the_step() -> None:
    rows = np.arange(14)
    parts = [Ranks(rank, 3).part(rows) for rank in range(3)]
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    assert Ranks().part(rows) is rows or (Ranks().part(rows) == rows).all()
    with pytest.raises(UsageError, match="2 views has none for some of 3 processes"):
        Ranks(0, 3).part(np.arange(2))


def test_the_environment_says_who_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_first_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()
