"""Loading ahead: in order, no further ahead than there are workers, and over when the loop is."""

import threading
import time
from contextlib import closing

import numpy as np
import pytest
import torch

from support.client.student_factories import fresh_classifier, training_data
from vl2v_client.student.loss.methods import TrainingConfig, erm
from vl2v_client.student.train.feeds import open_feed
from vl2v_client.student.train.training_run import TrainingRun, default_workers, load_ahead


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_steps_come_in_order_however_long_each_takes(workers: int) -> None:
    def load(step: int) -> int:
        time.sleep(0.002 * (step % 3))
        return step

    assert list(load_ahead(load, range(4, 20), workers)) == list(range(4, 20))


@pytest.mark.parametrize("workers", [0, 2])
def test_no_more_is_loaded_ahead_than_there_are_workers(workers: int) -> None:
    begun: list[int] = []

    def load(step: int) -> int:
        begun.append(step)
        return step

    with closing(load_ahead(load, range(100), workers)) as ahead:
        for step in range(5):
            assert next(ahead) == step
            assert len(begun) <= step + 1 + workers
    before = len(begun)
    time.sleep(0.05)
    assert len(begun) == before
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("load")]


def test_the_step_runs_while_the_next_is_loaded() -> None:
    loading = threading.Event()

    def load(step: int) -> int:
        if step == 1:
            loading.set()
        return step

    with closing(load_ahead(load, range(3), 1)) as ahead:
        next(ahead)
        assert loading.wait(10)  # nobody has asked for step 1 yet


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failure_comes_in_its_steps_turn(workers: int) -> None:
    def load(step: int) -> int:
        if step == 2:
            raise OSError("the disk is gone")
        return step

    ahead = load_ahead(load, range(5), workers)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(ahead)


def test_a_cpu_has_no_worker_by_default_and_a_gpu_has_some() -> None:
    assert default_workers(torch.device("cpu")) == 0
    assert default_workers(torch.device("cuda")) >= 1


def test_mixup_loads_the_partners_behind_the_batch() -> None:
    config = TrainingConfig(mixup=0.5, batch_size=4, device="cpu")
    run = TrainingRun(fresh_classifier(text=False), training_data(teacher=False), config)
    stage = erm(config).stages[0]
    loaded = open_feed(run, stage).load(3)
    assert loaded.mix is not None
    assert loaded.inputs.shape[0] == 2 * len(loaded.rows)
    assert sorted(zip(loaded.rows, loaded.views, strict=True)) == sorted(
        zip(loaded.mix.rows, loaded.mix.views, strict=True)
    )
    pixels = run.data.train.pixels[loaded.mix.rows, loaded.mix.views].transpose(0, 3, 1, 2)
    assert np.allclose(loaded.inputs[len(loaded.rows) :].numpy(), (pixels / 255 - 0.5) / 0.5, atol=1e-6)
