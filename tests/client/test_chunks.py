"""Chunks of views run on every core, in order, and leave the threads as they were; a network gets a few at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vl2v_client.student.model.classifier import a_few_at_once, in_chunks, in_even_chunks

CPU = torch.device("cpu")


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_the_outputs_are_those_of_one_pass_and_in_order(threads: int) -> None:
    torch.manual_seed(0)
    network, views = nn.Linear(5, 3), torch.randn(23, 5)
    found = torch.cat(list(in_chunks(lambda cut: network(views[cut]), 23, 4, CPU)))
    torch.testing.assert_close(found, network(views))
    assert not found.requires_grad


@pytest.mark.parametrize(("count", "size", "expected"), [(167, 128, [84, 83]), (300, 128, [75] * 4), (1, 128, [1])])
def test_chunks_may_be_alike_so_that_no_core_waits(threads: int, count: int, size: int, expected: list[int]) -> None:
    def sizes(device: torch.device) -> list[int]:
        found = list(in_even_chunks(lambda cut: torch.arange(cut.start, cut.stop), count, size, device))
        assert torch.cat(found).tolist() == list(range(count))
        return [len(part) for part in found]

    uneven = [*[size] * (count // size), count % size]
    assert sizes(CPU) == (expected if threads == 2 else uneven)
    assert sizes(torch.device("cuda")) == uneven


def test_each_core_works_alone_and_the_callers_threads_are_untouched(threads: int) -> None:
    torch_threads: set[int] = set()
    both = threading.Barrier(threads)

    def outputs(_cut: slice) -> Tensor:
        both.wait(timeout=10)  # so many run at a time
        torch_threads.add(torch.get_num_threads())
        return torch.zeros(1)

    assert len(list(in_chunks(outputs, 8, 2, CPU))) == 4
    assert torch_threads == {1}
    assert torch.get_num_threads() == threads
    of_later_threads: list[int] = []
    later = threading.Thread(target=lambda: of_later_threads.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert of_later_threads == [threads]


def test_an_error_is_the_callers(threads: int) -> None:
    def outputs(cut: slice) -> Tensor:
        raise RuntimeError(f"chunk of {cut.start}")

    with pytest.raises(RuntimeError, match="chunk of 0"):
        list(in_chunks(outputs, 8, 2, CPU))
    assert torch.get_num_threads() == threads


def test_nothing_gives_nothing(threads: int) -> None:
    assert not list(in_chunks(lambda _cut: torch.zeros(1), 0, 2, CPU))


def test_a_network_on_a_cpu_gets_a_few_views_at_a_time_and_their_outputs_are_joined() -> None:
    views, sizes = np.arange(13 * 2 * 2 * 3, dtype=np.uint8).reshape(13, 2, 2, 3), list[int]()

    def outputs(few: NDArray[np.uint8]) -> Tensor:
        sizes.append(len(few))
        return torch.from_numpy(few.reshape(len(few), -1).copy())

    joined = a_few_at_once(outputs, views, 224, CPU)
    assert sizes == [5, 5, 3]
    assert joined.tolist() == views.reshape(13, -1).tolist()
    a_few_at_once(outputs, views, 32, CPU)
    assert sizes[-1] == 13
