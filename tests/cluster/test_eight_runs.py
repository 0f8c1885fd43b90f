"""Eight runs, one after the other, by processes, in shards and on Ray: the same bytes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from support.client.fake_vendor import FakeVendor
from support.client.sweep_bench import (
    die_once,
    forbid_sockets_and_sqlite,
    made_by,
    opened_source,
    processes,
    run_sweep,
    tiny_sweep,
)
from vl2v_client.core.errors import RunError
from vl2v_client.core.progress import silent
from vl2v_client.recipes.ray_executor import RayExecutor
from vl2v_client.recipes.sweep import buy_for_sweep, merge_shards, sweep, train_shard
from vl2v_client.runs.sweep_purchase import find_purchase
from vl2v_client.runs.sweep_runs import Shard

pytestmark = [
    pytest.mark.timeout(3600),
    pytest.mark.filterwarnings("default"),  # a Ray that did not start leaves threads behind
]

STARTS = 6  # Ray does not come up at each try on a machine that is busy
SEEDS = (0, 1)


@pytest.fixture
def ray_executor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., RayExecutor]]:
    """Starts Ray, several times if it must; ends it."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # for its workers
    pytest.importorskip("ray", reason="needs the extra `ray`: `make test-ray`")
    opened: list[RayExecutor] = []

    def start(kind: Callable[..., RayExecutor] = RayExecutor, *arguments: Any) -> RayExecutor:
        for left in reversed(range(STARTS)):
            try:
                opened.append(kind(*arguments))
                return opened[-1]
            except RunError:
                if not left:
                    raise
                time.sleep(5)
        raise AssertionError("unreachable")

    yield start
    for executor in opened:
        executor.shutdown()


def test_two_processes_make_the_same_bytes(
    vendor: FakeVendor, data: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    with processes(2, forbid_sockets_and_sqlite) as executor:
        run_sweep(tiny_sweep(data, SEEDS), vendor, tmp_path / "client.db", tmp_path / "sweep", executor)
    assert made_by(tmp_path / "sweep") == alone


def test_two_shards_and_their_merge_make_the_same_bytes(
    vendor: FakeVendor, data: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    settings, out = tiny_sweep(data, SEEDS), tmp_path / "sweep"
    with opened_source(vendor, tmp_path / "client.db") as source:
        buy_for_sweep(settings, source, out, progress=silent)
        billed = vendor.billed_units
        for shard in (Shard(0, 2), Shard(1, 2)):
            train_shard(settings, source, out, shard, progress=silent)
        merge_shards(settings, source, out)
    assert (vendor.billed_units, made_by(out)) == (billed, alone)


def test_workers_that_are_killed_cost_no_query(
    vendor: FakeVendor, data: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    settings = tiny_sweep(data, SEEDS, checkpoint_every=1)
    with opened_source(vendor, tmp_path / "client.db") as source:
        buy_for_sweep(settings, source, tmp_path / "sweep", progress=silent)
    billed, died = vendor.billed_units, 0
    for step in (2, 4, 3):
        flag = tmp_path / f"died{step}"
        with suppress(RunError), processes(2, die_once, flag, step) as executor:
            run_sweep(settings, vendor, tmp_path / "client.db", tmp_path / "sweep", executor)
        died += flag.exists()
    run_sweep(settings, vendor, tmp_path / "client.db", tmp_path / "sweep")
    assert died >= 2
    assert (vendor.billed_units, made_by(tmp_path / "sweep")) == (billed, alone)


def test_ray_makes_the_same_bytes(
    vendor: FakeVendor,
    data: Path,
    alone: dict[str, bytes],
    tmp_path: Path,
    ray_executor: Callable[..., RayExecutor],
) -> None:
    with opened_source(vendor, tmp_path / "client.db") as source:
        sweep(tiny_sweep(data, SEEDS), source, tmp_path / "sweep", ray_executor(), progress=silent)
    assert made_by(tmp_path / "sweep") == alone


def test_ray_reports_what_a_task_raises_and_gives_a_lost_worker_s_task_to_another(
    ray_executor: Callable[..., RayExecutor], tmp_path: Path
) -> None:
    executor = ray_executor()
    with pytest.raises(ZeroDivisionError):
        executor.submit(divmod, 1, 0).result(timeout=120)
    assert executor.submit(_die_first, str(tmp_path / "flag")).result(timeout=240) == "second"


class DyingOnce(RayExecutor):
    """Ray whose first worker to take a number of optimizer steps dies in the last of them."""

    def __init__(self, flag: Path, step: int) -> None:
        super().__init__()
        self._death = (flag, step)

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        return super().submit(_train_or_die, self._death, task, *arguments, **named)


def _train_or_die(death: tuple[Path, int], task: Callable[..., Any], *arguments: Any) -> Any:
    die_once(*death)
    return task(*arguments)


def test_a_worker_of_ray_that_dies_while_it_trains_costs_no_query(
    vendor: FakeVendor,
    data: Path,
    alone: dict[str, bytes],
    tmp_path: Path,
    ray_executor: Callable[..., RayExecutor],
) -> None:
    settings, out, flag = tiny_sweep(data, targets=("art",), checkpoint_every=1), tmp_path / "sweep", tmp_path / "died"
    with opened_source(vendor, tmp_path / "client.db") as source:
        buy_for_sweep(settings, source, out, progress=silent)
    asked = len(vendor.seen)
    source = find_purchase(settings, out)
    assert source is not None
    sweep(settings, source, out, ray_executor(DyingOnce, flag, 4))
    made = made_by(out)
    del made["report.json"]
    assert flag.exists()
    assert (len(vendor.seen), made) == (asked, {name: alone[name] for name in alone if name.startswith("art/seed0/")})


def _die_first(flag: str) -> Any:
    if not os.path.exists(flag):
        Path(flag).touch()
        os._exit(9)
    return "second"
