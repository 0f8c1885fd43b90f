"""A sweep's runs, trained one after the other, by several processes, or in shards: the same bytes, no query."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from support.client.buying_bench import count_listings, draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from support.client.sweep_bench import (
    METHODS,
    TARGETS,
    TRAINING,
    die_once,
    forbid_sockets_and_sqlite,
    made_by,
    opened_source,
    processes,
    run_sweep,
    tiny_sweep,
)
from support.vendor.tiny_clip import write_tiny_clip
from vl2v_client.cache.memo import SessionCache
from vl2v_client.cache.purchase_file import PurchaseFile
from vl2v_client.core.errors import RunError, UsageError
from vl2v_client.core.progress import no_notice, silent
from vl2v_client.recipes import sweep_tasks
from vl2v_client.recipes.sweep import buy_for_sweep, sweep, train_shard
from vl2v_client.recipes.sweep_tasks import train_all
from vl2v_client.runs.bought_source import BoughtSource
from vl2v_client.runs.local_source import LocalSource, load_local_teacher
from vl2v_client.runs.sweep_purchase import claimed_sweep, find_purchase, rejoined_sweep
from vl2v_client.runs.sweep_runs import Shard, describe_runs

RUNS = len(TARGETS) * len(METHODS)
FLAGS = {name: "--" + name.replace("_", "-") for name in TRAINING}
WORDS = (
    *(word for name, value in TRAINING.items() for word in (FLAGS[name], str(value))),
    *(word for target in TARGETS for word in ("--target-domain", target)),
    *(word for method in METHODS for word in ("--method", method)),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_domains(tmp_path_factory.mktemp("sweeps") / "data", 5)


@pytest.fixture(scope="module")
def alone(data: Path) -> dict[str, bytes]:
    """What a sweep in one process makes."""
    torch.set_num_threads(1)
    run_sweep(tiny_sweep(data), FakeVendor(), data.parent / "alone.db", data.parent / "alone")
    return made_by(data.parent / "alone")


@pytest.fixture
def shell(vendor: FakeVendor, data: Path, tmp_path: Path) -> Iterator[ClientShell]:
    (tmp_path / "data").symlink_to(data)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--views", "2")


def test_other_processes_make_the_same_bytes_and_open_neither_socket_nor_sqlite(
    vendor: FakeVendor, data: Path, alone: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data.parent)  # paths that are relative here are another place's in a worker
    with processes(2, forbid_sockets_and_sqlite) as executor:
        run_sweep(tiny_sweep(Path("data")), vendor, tmp_path / "client.db", tmp_path / "sweep", executor)
    assert made_by(tmp_path / "sweep") == alone
    assert len(alone) == 5 * RUNS + 1
    assert not (tmp_path / "sweep" / ".features").exists()


def test_a_worker_killed_in_the_middle_costs_no_query_and_the_sweep_goes_on(
    vendor: FakeVendor, data: Path, alone: dict[str, bytes], tmp_path: Path
) -> None:
    settings, flag = tiny_sweep(data, targets=("art",), checkpoint_every=1), tmp_path / "died"
    places = (tmp_path / "client.db", tmp_path / "sweep")
    with processes(1, die_once, flag, 4) as executor, pytest.raises(RunError, match="run the same command again"):
        run_sweep(settings, vendor, *places, executor)
    assert flag.exists()
    assert not (tmp_path / "sweep" / "report.json").exists()
    billed = vendor.billed_units
    run_sweep(settings, vendor, *places)
    made = made_by(tmp_path / "sweep")
    del made["report.json"]
    assert (vendor.billed_units, made) == (billed, {name: alone[name] for name in alone if name.startswith("art/")})


def test_shards_need_neither_vendor_nor_cache_and_their_merge_is_the_sweep(
    vendor: FakeVendor, shell: ClientShell, alone: dict[str, bytes]
) -> None:
    out = shell.folder / "sweep"
    words = (*WORDS, "--out", str(out), "--yes")
    bought = shell.run("sweep", *words, "--shard", "buy")
    assert bought.exit_code == 0, bought.output
    assert not list(out.glob("*/seed0"))
    asked = len(vendor.seen)
    nobody = {"cache": "nowhere/client.db", "VL2V_VENDOR_URL": "http://127.0.0.1:9"}
    early = shell.run("sweep", *words, "--shard", "merge", **nobody)
    assert f"4 of {RUNS} runs are not done: art/seed0/text-cosine" in str(early.exception)
    for part in ("0/2", "1/2"):
        done = shell.run("sweep", *words, "--shard", part, **nobody)
        assert done.exit_code == 0, done.output
    merged = shell.run("sweep", *words, "--shard", "merge", **nobody)
    assert merged.exit_code == 0, merged.output
    assert (len(vendor.seen), (shell.folder / "nowhere").exists()) == (asked, False)
    assert made_by(out).keys() == alone.keys()
    assert {name for name, content in made_by(out).items() if content != alone[name]} <= {
        name for name in alone if name.endswith("config.json")
    }  # the data set lies elsewhere


def test_a_shard_buys_where_nobody_has_and_others_need_not(vendor: FakeVendor, shell: ClientShell) -> None:
    words = (*WORDS, "--out", str(shell.folder / "sweep"), "--yes", "--shard")
    assert shell.run("sweep", *words, "3/4").exit_code == 0
    billed = vendor.billed_units
    assert billed > 0
    assert shell.run("sweep", *words, "2/4").exit_code == 0
    assert vendor.billed_units == billed
    done = sorted(
        str(path.parent.relative_to(shell.folder / "sweep")) for path in shell.folder.glob("sweep/*/*/*/report.json")
    )
    assert done == ["photo/seed0/text-cosine", "photo/seed0/vl2v-adip"]


def test_a_sweep_that_goes_on_lists_its_data_once_and_reads_its_purchase_once(
    data: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, checked, check = count_listings(monkeypatch), [], PurchaseFile.check

    def counted(file: PurchaseFile) -> None:
        checked.append(file.path)
        check(file)

    monkeypatch.setattr(PurchaseFile, "check", counted)
    settings, out = tiny_sweep(data), data.parent / "alone"
    listed.clear()
    found = find_purchase(settings, out)
    assert found is not None
    assert ({*listed.values()}, len(checked)) == ({1}, 1)
    listed.clear()
    with claimed_sweep(settings, found, out, silent, no_notice) as bought:
        assert bought.source is found
    assert ({*listed.values()}, len(checked)) == ({1}, 1)
    assert rejoined_sweep(settings, BoughtSource.of_sweep(out / "."), out, silent).planned == bought.planned


class Elsewhere(ThreadPoolExecutor):
    """A thread that is given what a process would be given: pickled values."""

    def submit(self, task: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        task, arguments, named = pickle.loads(pickle.dumps((task, arguments, named)))
        return super().submit(task, *arguments, **named)


def test_a_local_teacher_s_runs_are_the_same_bytes_with_an_executor(data: Path, tmp_path: Path) -> None:
    spec = write_tiny_clip(tmp_path)
    local = {"local_teacher": str(spec.config_file), "local_weights": spec.checkpoint_file}
    settings = replace(tiny_sweep(data, purchase=local, targets=("art",)), methods=("vl2v-adip",))
    source = LocalSource(load_local_teacher(settings.run.config.purchase, "cpu"), SessionCache())
    for out, executor in (("here", None), ("elsewhere", Elsewhere(1))):
        sweep(settings, source, tmp_path / out, executor, progress=silent)
        assert not list((tmp_path / out).rglob("answers"))
    assert trained(tmp_path / "elsewhere") == trained(tmp_path / "here")
    assert len(trained(tmp_path / "here")) == 3 + 1


def trained(out: Path) -> dict[str, bytes]:
    """Students, predictions for the target and reports of a sweep, by path."""
    names = ("student.safetensors", "predictions.csv", "report.json")
    return {str(path.relative_to(out)): path.read_bytes() for name in names for path in out.rglob(name)}


def test_the_call_of_the_documents_runs(vendor: FakeVendor, data: Path, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "methods" / "cluster.md").read_text()
    [call] = re.findall(r"`vl2v_client\.recipes\.sweep\.(sweep\(.+?\))`", page)
    settings = replace(tiny_sweep(data, targets=("art",)), methods=("text-cosine",))
    with opened_source(vendor, tmp_path / "client.db") as source, Elsewhere(1) as executor:
        known = {"settings": settings, "source": source, "out": tmp_path / "sweep", "executor": executor}
        report = eval(call, {"sweep": sweep, **known})
    assert len(report.outcomes) == 1


@pytest.fixture
def torch_threads() -> Iterator[Callable[[int], None]]:
    """Sets how many threads PyTorch has chosen here."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_runs_train_with_the_threads_of_the_purchase_wherever_they_are_described(
    vendor: FakeVendor,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    torch_threads: Callable[[int], None],
) -> None:
    trained_with: list[int] = []
    monkeypatch.setattr(sweep_tasks, "distill", lambda *_, **__: trained_with.append(torch.get_num_threads()))
    settings, out = tiny_sweep(data, targets=("art",), threads=None), tmp_path / "sweep"

    def train() -> list[int]:
        trained_with.clear()
        train_shard(settings, source, out, Shard(0, 2), progress=silent)
        with claimed_sweep(settings, source, out, silent, no_notice) as bought:
            train_all(bought.runs[1:], bought.source, Elsewhere(1), silent)
        return trained_with

    with opened_source(vendor, tmp_path / "client.db") as source:
        torch_threads(3)
        buy_for_sweep(settings, source, out, progress=silent)
        torch_threads(2)
        assert train() == [3, 3]
        (out / "threads.json").unlink()  # as in a folder of an earlier version
        assert train() == [2, 2]
        torch_threads(1)
        assert train() == [2, 2]


def test_shards_are_parts_of_the_runs(data: Path) -> None:
    runs = describe_runs(tiny_sweep(data, (0, 1)), Path("sweep"), 3)
    parts = [Shard.parse(f"{index}/3").of(runs) for index in range(3)]
    assert sorted(run.key for part in parts for run in part) == sorted(run.key for run in runs)
    assert {run.threads for run in runs} == {1}
    assert all(run.place.is_absolute() for run in runs)
    for text in ("2/2", "x", "1", "-1/2", "0/0", "1/x"):
        with pytest.raises(UsageError, match="no part of a sweep"):
            Shard.parse(text)


def test_one_trial_of_the_student_is_enough_for_a_sweep(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vl2v_client.runs import before_purchase

    tried, whole = 0, before_purchase.FrozenFeatures

    def counted(*arguments: object) -> object:
        nonlocal tried
        tried += 1
        return whole(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(before_purchase, "FrozenFeatures", counted)
    short, out = WORDS[: WORDS.index("photo") - 1], ("--out", str(shell.folder / "sweep"))  # two runs
    done = shell.run("sweep", *short, *(word for one in METHODS for word in ("--method", one)), *out, "--yes")
    assert done.exit_code == 0, done.output
    assert tried == 1
    assert not (shell.folder / "sweep" / "report.png").exists()


def test_ray_without_its_package_says_what_to_install(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ray", None)
    refused = shell.run("sweep", *WORDS, "--out", str(shell.folder / "sweep"), "--yes", "--engine", "ray")
    assert isinstance(refused.exception, UsageError)
    assert "of the extra `ray`" in str(refused.exception)
    both = shell.run("sweep", *WORDS, "--shard", "0/2", "--engine", "ray")
    assert "--shard is for runs without Ray" in str(both.exception)
    assert vendor.billed_units == 0
