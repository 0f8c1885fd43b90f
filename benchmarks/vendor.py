"""The vendor against the bare model and other servers: throughput, latency, texts, the wire; and on a GPU.

One run holds every arm, interleaved: RAW (open_clip in one process at its best, decoding included), NAIVE (FastAPI, one
image under a lock, JSON floats), OURS (as `vl2v-vendor serve` starts it: authentication, billing, metrics) and, with
`--infinity-python`, INFINITY (infinity-emb with the same architecture). Weights are random, which costs what trained
ones cost; photos are drawn, 500 x 375, about 50 kB. The default takes under ten minutes on two cores.

For INFINITY: `python -m venv E && E/bin/pip install 'infinity-emb[torch,vision,server]' aiohttp`, then
`--infinity-python E/bin/python`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from pictures import save_photos
from random_models import RandomModel, save_random_model
from raw_model import RawModel
from result import Goal, write_result
from vendor_arms import INFINITY, NAIVE, OURS, RAW, Arm, infinity, naive, ours
from vendor_goals import latency_goals, text_goals, throughput_goals, wire_goals
from vendor_gpu import measure_gpu
from vendor_plot import draw
from vendor_turns import (
    CAPTIONS,
    IDLE,
    IN_PROCESS,
    MANY_CLIENTS,
    Row,
    make_row,
    measure_latency,
    measure_texts,
    measure_throughput,
)
from vendor_wire import measure_wire

PARTS = ("throughput", "latency", "texts", "wire", "gpu")
PHOTOS = 64
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def main() -> None:
    chosen = _options()
    for variable in _THREAD_VARIABLES:
        os.environ.pop(variable, None)  # they would bind some arms and not others
    with workplace(chosen.dir) as folder:
        print("==> model and photos", file=sys.stderr)
        model = save_random_model(folder / "model", chosen.architecture)
        photos = save_photos(folder / "photos", PHOTOS)
        bench = Bench(folder, model, photos, chosen)
        rows, goals = asyncio.run(bench.run(chosen.only or PARTS))
    write_result("vendor", rows, goals, out=chosen.out)
    if chosen.plot is not None:
        draw(rows, chosen.plot)


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--images", type=int, default=160, help="of each arm in a round")
    options.add_argument("--architecture", default="ViT-B-32", help="open_clip's name, or a configuration file")
    options.add_argument("--infinity-python", type=Path, help="Python of an environment with infinity-emb")
    options.add_argument("--only", nargs="+", choices=PARTS, help="these parts alone")
    options.add_argument("--dir", type=Path, help="keep model, photos and the servers' logs here")
    options.add_argument("--plot", type=Path, help="draw the throughput into this picture")
    options.add_argument("--out", type=Path)
    return options.parse_args()


@contextmanager
def workplace(chosen: Path | None) -> Iterator[Path]:
    """The folder that was asked for, or one that is gone afterwards."""
    if chosen is not None:
        yield chosen
        return
    with tempfile.TemporaryDirectory(prefix="vl2v-vendor-bench-") as folder:
        yield Path(folder)


class Bench:
    """One run: model and photos on disk, and what was asked for."""

    def __init__(self, folder: Path, model: RandomModel, photos: list[bytes], chosen: argparse.Namespace) -> None:
        self._folder = folder
        self._model = model
        self._photos = photos
        self._chosen = chosen

    async def run(self, parts: Sequence[str]) -> tuple[list[Row], list[Goal]]:
        rows: list[Row] = []
        goals: list[Goal] = []
        if set(parts) - {"gpu"}:
            rows, goals = await self._on_the_cpu(parts)
        if "gpu" in parts:
            print("==> gpu", file=sys.stderr)
            found = await measure_gpu(
                self._folder,
                self._model,
                self._photos,
                self._folder / "photos",
                rounds=self._chosen.rounds,
                images=self._chosen.images,
            )
            rows, goals = rows + found[0], goals + found[1]
        return rows, goals

    async def _on_the_cpu(self, parts: Sequence[str]) -> tuple[list[Row], list[Goal]]:
        rounds, images = self._chosen.rounds, self._chosen.images
        rows: list[Row] = []
        goals: list[Goal] = []
        with ExitStack() as stack:
            raw = stack.enter_context(RawModel(self._model, self._folder / "photos"))
            arms, missing = self._start(stack, with_rivals=bool({"throughput", "latency"} & set(parts)))
            vendor = next(arm for arm in arms if arm.name == OURS)
            if "throughput" in parts:
                print("==> RAW's best way", file=sys.stderr)
                way = raw.best_way(max(32, images // 2))
                print(f"==> throughput; RAW at {way}", file=sys.stderr)
                speeds = await measure_throughput(arms, raw, way, self._photos, rounds=rounds, images=images)
                rows += [_note_way(row, str(way)) for row in speeds.rows("images/s", IN_PROCESS)] + missing
                goals += throughput_goals(speeds)
            if "latency" in parts:
                print("==> latency", file=sys.stderr)
                waits = await measure_latency(arms, raw, self._photos, rounds=rounds, calls=max(5, images // 8))
                rows += waits.rows("ms", IDLE)
                goals += latency_goals(waits)
            if "texts" in parts:
                print("==> texts", file=sys.stderr)
                texts, difference = await measure_texts(vendor, raw, rounds=rounds, batches=max(4, images // 10))
                rows += texts.rows("captions/s", CAPTIONS)
                goals += text_goals(texts, difference)
            if "wire" in parts:
                print("==> wire", file=sys.stderr)
                weights = await measure_wire(vendor)
                rows += weights
                goals += wire_goals(weights)
        return rows, goals

    def _start(self, stack: ExitStack, *, with_rivals: bool) -> tuple[list[Arm], list[Row]]:
        """Every server; and a row that says why one is missing."""
        print(f"==> starting {OURS}", file=sys.stderr)
        arms = [stack.enter_context(ours(self._folder / "vendor", self._model, "cpu"))]
        if not with_rivals:
            return arms, []
        print(f"==> starting {NAIVE}", file=sys.stderr)
        arms.append(stack.enter_context(naive(self._model, self._folder / "naive.log")))
        try:
            arms.append(stack.enter_context(self._infinity()))
        except (RuntimeError, OSError) as error:
            return arms, [make_row(MANY_CLIENTS, INFINITY, "images/s", [], note=f"missing: {error}")]
        return arms, []

    def _infinity(self) -> AbstractContextManager[Arm]:
        python = self._chosen.infinity_python
        if python is None:
            raise RuntimeError("no --infinity-python")
        print(f"==> starting {INFINITY}", file=sys.stderr)
        return infinity(python, self._folder, self._model, self._photos[0])


def _note_way(row: Row, way: str) -> Row:
    return row | {"note": way} if row["arm"] == RAW else row


if __name__ == "__main__":
    main()
