"""Sweeps of tiny students on any engine, and workers that forbid what no task may do, or die once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from support.client.fake_vendor import API_KEY, FakeVendor, served
from vl2v_client.api.client import VendorClient
from vl2v_client.buying.context import purchase_context
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.run import RunConfig
from vl2v_client.core.progress import silent
from vl2v_client.recipes.sweep import sweep
from vl2v_client.reports.sweep_report import SweepReport
from vl2v_client.runs.settings import SweepSettings, settle_sweep
from vl2v_client.runs.vendor_source import VendorSource

TARGETS, METHODS = ("art", "photo"), ("text-cosine", "vl2v-adip")
TRAINING = {
    "align_steps": 2,
    "distill_steps": 3,
    "batch_size": 2,
    "evaluate_every": 2,
    "device": "cpu",
    "threads": 1,
    "align": "ridge",
}


def tiny_sweep(
    data: Path,
    seeds: tuple[int, ...] = (0,),
    targets: tuple[str, ...] = TARGETS,
    purchase: Mapping[str, Any] | None = None,
    **training: Any,
) -> SweepSettings:
    """Two methods with each target, two by default, and each seed."""
    groups = {"data": {"root": data}, "purchase": {"views": 2, **(purchase or {})}, "student": {"name": "tiny"}}
    config = RunConfig.model_validate({**groups, "training": {**TRAINING, **training}})
    return settle_sweep(config, targets, seeds, METHODS)


@contextmanager
def opened_source(vendor: FakeVendor, cache: Path) -> Iterator[VendorSource]:
    """The vendor, with every purchase approved."""
    terms = RunConfig().purchase
    with served(vendor) as url, VendorClient(url, API_KEY) as client, EmbeddingCache(cache) as opened:
        yield VendorSource(purchase_context(terms, client, opened, lambda _plan: None, lambda _sentence: None))


def run_sweep(
    settings: SweepSettings, vendor: FakeVendor, cache: Path, out: Path, executor: Executor | None = None
) -> SweepReport:
    """Buy and train a sweep."""
    with opened_source(vendor, cache) as source:
        return sweep(settings, source, out, executor, progress=silent)


def made_by(out: Path) -> dict[str, bytes]:
    """What a sweep has made that must not depend on who trained its runs, by path."""
    names = ("student/student.safetensors", "report.json", "predictions.csv", "used.json", "config.json")
    runs = sorted(out.glob("*/seed*/*/"))
    found = {str(run.relative_to(out) / name): (run / name).read_bytes() for run in runs for name in names}
    return found | {"report.json": (out / "report.json").read_bytes()}


def forbid_sockets_and_sqlite() -> None:
    """Make every socket and SQLite file that this process opens from now on an error."""
    sys.addaudithook(_refuse)


def _refuse(event: str, _arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "sqlite3.connect"):
        raise RuntimeError(f"a task must not do this: {event}")


def die_once(flag: Path, step: int) -> None:
    """End this process, as a kill does, in its optimizer step of this number, unless another one has died so."""
    steps, whole_step = 0, torch.optim.Adam.step

    def watched(optimizer: torch.optim.Adam, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == step and not flag.exists():
            flag.touch()
            os._exit(9)
        return whole_step(optimizer, *arguments)

    torch.optim.Adam.step = watched  # type: ignore[method-assign, assignment]


def processes(count: int, initializer: Callable[..., None] | None = None, *arguments: Any) -> ProcessPoolExecutor:
    """Processes that know nothing of this one, as on another host; the libraries are imported once for all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["vl2v_client.recipes.sweep_tasks"])
    return ProcessPoolExecutor(count, context, initializer, arguments)
