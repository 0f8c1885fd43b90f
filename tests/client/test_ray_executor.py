"""What the executor makes of Ray's answers, on a stand-in for Ray; `make test-ray` has the real one."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from types import SimpleNamespace
from typing import Any

import pytest

from vl2v_client.core.errors import RunError
from vl2v_client.recipes.ray_executor import RayExecutor


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause: Exception) -> None:
        super().__init__("the task has raised")
        self.cause = cause


class FakeRay:
    """Has tasks wait until a test ends them."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, fault: str | None = None) -> None:
        self.fault, self.asked, self.tasks, self.cancelled, self.is_up = fault, {}, [], [], False

    def is_initialized(self) -> bool:
        return self.is_up

    def init(self, **asked: Any) -> None:
        self.asked = asked
        if self.fault is not None:
            raise Exception(f"{self.fault}\nand more")
        self.is_up = True

    def shutdown(self) -> None:
        self.is_up = False

    def remote(self, **needs: float) -> Callable[[Any], Any]:
        def submit(*_arguments: Any) -> Any:
            task: Future[Any] = Future()
            self.tasks.append(task)
            return SimpleNamespace(future=lambda: task, needs=needs)

        return lambda _function: SimpleNamespace(remote=submit)

    def cancel(self, reference: Any) -> None:
        self.cancelled.append(reference.needs)


def test_results_errors_lost_workers_and_cancelled_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with RayExecutor(gpus=0.5, cpus=2) as executor:
        done, failed, lost, withdrawn = (executor.submit(pow, 2, 3) for _ in range(4))
        ray.tasks[0].set_result(8)
        ray.tasks[1].set_exception(RayTaskError(ZeroDivisionError("by the task")))
        ray.tasks[2].set_exception(RayError("The worker died\nat length"))
        assert withdrawn.cancel()
        ray.tasks[3].set_exception(RayError("cancelled"))
        assert done.result() == 8
        with pytest.raises(ZeroDivisionError, match="by the task"):
            failed.result()
        with pytest.raises(BrokenExecutor, match=r"^The worker died$"):
            lost.result()
        assert ray.cancelled == [{"num_gpus": 0.5, "num_cpus": 2}]
        assert (ray.is_up, ray.asked["address"]) == (True, "local")
    assert not ray.is_up


def test_a_cluster_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay("The current node timed out during startup")
    monkeypatch.setitem(sys.modules, "ray", ray)
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    with pytest.raises(RunError, match=r"^Ray at head:6379 does not start or answer \(The current node timed out dur"):
        RayExecutor()
    assert ray.asked["include_dashboard"] is None


def test_a_ray_that_somebody_else_has_started_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = FakeRay()
    ray.is_up = True
    monkeypatch.setitem(sys.modules, "ray", ray)
    with RayExecutor():
        assert ray.asked == {}
    assert ray.is_up
