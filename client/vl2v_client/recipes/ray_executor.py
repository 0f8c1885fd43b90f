"""Ray as an executor of `concurrent.futures`: a cluster that is there, or this machine."""

import os
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future
from typing import Any, TypeVar

from vl2v_client.core.errors import RunError
from vl2v_client.core.extras import missing_package

_Result = TypeVar("_Result")


class RayExecutor(Executor):
    """Runs each task in a worker of the cluster at `RAY_ADDRESS`, or of a Ray that it starts on this machine, and ends.

    A task whose worker is lost goes to another one; one that is cancelled ends, also while it runs. Workers need the
    same packages, and see the same files.

    Args:
        gpus: GPUs of each task; parts of one may be shared.
        cpus: CPU cores of each task.

    Raises:
        UsageError: Ray is not installed.
        RunError: It does not start, or the cluster does not answer.
    """

    def __init__(self, *, gpus: float = 0, cpus: float = 1) -> None:
        try:
            import ray
        except ImportError as error:
            raise missing_package(error, "ray") from error
        self._ray = ray
        self._is_own = not ray.is_initialized()
        if self._is_own:
            _start(ray, os.environ.get("RAY_ADDRESS") or "local")
        self._call = ray.remote(num_gpus=gpus, num_cpus=cpus)(_call)

    def submit(self, task: Callable[..., _Result], /, *arguments: Any, **named: Any) -> Future[_Result]:
        """See `Executor`."""
        reference = self._call.remote(task, arguments, named)
        future: Future[_Result] = Future()

        def withdraw(done: Future[_Result]) -> None:
            if done.cancelled():
                self._ray.cancel(reference)

        future.add_done_callback(withdraw)
        reference.future().add_done_callback(lambda done: self._hand_over(done, future))
        return future

    def _hand_over(self, done: Future[_Result], future: Future[_Result]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        errors, error = self._ray.exceptions, done.exception()
        if error is None:
            future.set_result(done.result())
        elif isinstance(error, errors.RayTaskError):
            future.set_exception(error.cause)
        else:
            future.set_exception(BrokenExecutor(str(error).partition("\n")[0]))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - see `Executor`
        """End a Ray that this object started, or leave the cluster that it joined; tasks that run end with it."""
        if self._is_own:
            self._ray.shutdown()


def _start(ray: Any, address: str) -> None:
    try:
        ray.init(address=address, include_dashboard=False if address == "local" else None, log_to_driver=False)
    except Exception as error:  # Ray raises this class itself
        ray.shutdown()
        reason = str(error).strip().partition("\n")[0]
        raise RunError(f"Ray at {address} does not start or answer ({reason}): run the same command again") from error


def _call(task: Callable[..., _Result], arguments: tuple[Any, ...], named: dict[str, Any]) -> _Result:
    return task(*arguments, **named)
