"""Several processes train as one: the same samples, the same gradients, and none waits for the dead."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from support.client import training_child
from support.client.training_child import train_together, train_watched
from vl2v_client.core.errors import RunError, UsageError
from vl2v_client.student.train.devices import Ranks, is_first_process, naming_lost_ranks

CHILD = Path(training_child.__file__)
SECONDS = 240


def _torchrun(folder: Path, processes: int, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    paths = os.pathsep.join([str(CHILD.parent), *sys.path])
    return subprocess.run(
        [*launcher, str(CHILD), str(folder), *words],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.parametrize(("processes", "frozen", "align"), [(2, 0, "ridge"), (3, 0, "adam"), (2, 1, "adam")])
def test_processes_make_the_gradients_and_the_student_of_one(
    tmp_path: Path, processes: int, frozen: int, align: str
) -> None:
    tolerance = 1e-6 if align == "adam" else 1e-5  # with `ridge`, the processes round otherwise from each other
    alone = train_watched(None, freeze_until=frozen, align=align)
    results = train_together(tmp_path, processes, SECONDS, freeze_until=frozen, align=align)
    for result in results:
        for own, single in zip(result["gradients"], alone["gradients"], strict=True):
            for gradient, expected in zip(own, single, strict=True):
                assert (gradient - expected).abs().max() < tolerance
        for own, of_first, single in zip(result["first"], results[0]["first"], alone["first"], strict=True):
            for weights, shared, expected in zip(own, of_first, single, strict=True):
                assert torch.equal(weights, shared)
                assert (weights - expected).abs().max() < 1e-3
        assert result["accuracy"] == alone["accuracy"] == 1.0
        for term in ("loss", "image", "bought", "text", "floor"):
            means = [row[term] for row in result["history"]]
            assert means == pytest.approx([row[term] for row in alone["history"]], abs=1e-4), term
        assert 0 < alone["history"][-1]["bought"] < 1
        assert result["history"] == results[0]["history"]
        for name, value in result["weights"].items():
            assert torch.equal(value, results[0]["weights"][name])
            assert (value - alone["weights"][name]).abs().max() < 1e-3


def test_a_dead_process_ends_the_others_and_the_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    undisturbed = train_together(calm, 2, SECONDS)

    ended = _torchrun(stormy, 2, ["1", "42"])  # within SECONDS: the launcher ends the other one
    assert ended.returncode != 0
    assert (stormy / "checkpoints" / "distill.pt").exists()
    assert not (stormy / "result-0.pt").exists()

    for before, after in zip(undisturbed, train_together(stormy, 2, SECONDS), strict=True):
        assert all(torch.equal(value, after["weights"][name]) for name, value in before["weights"].items())
    assert (calm / "metrics.jsonl").read_text() == (stormy / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:2000\nand more"),
        torch.distributed.DistBackendError("NCCL error"),
    ],
)
def test_whoever_notices_a_lost_process_says_what_to_do(error: RuntimeError) -> None:
    expected = r"another process of this run has ended .*start all of them again"
    with pytest.raises(RunError, match=expected), naming_lost_ranks():
        raise error
    with pytest.raises(RuntimeError, match="shapes differ"), naming_lost_ranks():
        raise RuntimeError("shapes differ")


def test_the_parts_of_a_step_are_the_step() -> None:
    rows = np.arange(14)
    parts = [Ranks(rank, 3).shard(rows) for rank in range(3)]
    assert sorted(np.concatenate(parts).tolist()) == rows.tolist()
    assert Ranks().shard(rows) is rows or (Ranks().shard(rows) == rows).all()
    with pytest.raises(UsageError, match="2 views has none for some of 3 processes"):
        Ranks(0, 3).shard(np.arange(2))


def test_the_environment_says_who_is_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert is_first_process()
    monkeypatch.setenv("RANK", "1")
    assert not is_first_process()
