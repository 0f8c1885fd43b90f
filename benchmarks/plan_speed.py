"""How long the command `plan` takes for a very large data set, cold and warm, against a real vendor.

Run without arguments: 600,000 distinct images of 4 KB in DomainNet's layout, which takes 2.4 GB of disk in a temporary
folder (`--folder` names another place) and some minutes to write. *Cold* has an empty client cache, so every training
file is read and hashed; *warm* is the same command again. The operating system may hold the files in memory, as after
a download.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from local_vendor import vendor_process
from PIL import Image
from result import Goal, write_result

IMAGES = 600_000
BYTES_PER_IMAGE = 4096
DOMAINS, CLASSES = 6, 345
TARGET = "domain0"
COLD_SECONDS, WARM_SECONDS = 60, 5
EXACT_VIEWS = 20_000
"""Below this many views, `plan` renders each."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--exact-images", type=int, default=EXACT_VIEWS, help="one view each, rendered; 0 skips them")
    parser.add_argument("--folder", type=Path, help="where the images are written, and removed again")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        rows = measure(Path(folder), arguments.images, views=4, target=TARGET)
        rows += measure(Path(folder), arguments.images, views=4, target=None)
        if arguments.exact_images:
            rows += measure(Path(folder), arguments.exact_images, views=1, target=None)
    whole = rows[3] | {"cold": rows[2]["seconds"]}
    goals = [
        Goal(f"plan for {arguments.images:,} images, cold, s", float(str(whole["cold"])), f"< {COLD_SECONDS}",
             float(str(whole["cold"])) < COLD_SECONDS),
        Goal(f"plan for {arguments.images:,} images, warm, s", float(str(whole["seconds"])), f"< {WARM_SECONDS}",
             float(str(whole["seconds"])) < WARM_SECONDS),
    ]  # fmt: skip
    write_result("plan_speed", rows, goals, out=arguments.out)


def measure(folder: Path, images: int, *, views: int, target: str | None) -> list[dict[str, object]]:
    """Plan twice with a cache of its own; a row for each."""
    data = folder / f"images-{images}"
    if not data.exists():
        write_images(data, images)
    home = folder / f"home-{images}-{target}"
    words = ["plan", "--json", "--data", str(data), "--views", str(views)]
    words += [] if target is None else ["--target-domain", target]
    rows = []
    with vendor_process(home, ("--encoder", "hash")) as (environment, _):
        for state in ("cold", "warm"):
            seconds, cpu_seconds, peak_mib, plan = run_plan(environment, words)
            rows.append(
                {
                    "images": images,
                    "trained on": plan["images"],
                    "views": plan["views"],
                    "cache": state,
                    "new queries": plan["new_queries"],
                    "is": "exact" if plan["exact"] else "upper bound",
                    "seconds": round(seconds, 2),
                    "CPU seconds": round(cpu_seconds, 2),
                    "peak MiB": round(peak_mib),
                }
            )
    return rows


def run_plan(environment: Mapping[str, str], words: list[str]) -> tuple[float, float, float, dict[str, object]]:
    """Wall time, CPU time, peak memory in MiB and answer of one command, its start included."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen([sys.executable, "-m", "vl2v_client", *words], env=dict(environment), stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        answer = out.read()
    if process.returncode != 0:
        sys.exit(f"plan ended with {process.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, json.loads(answer)


def write_images(root: Path, count: int) -> None:
    """`count` JPEG files of `BYTES_PER_IMAGE` bytes, no two with the same bytes, over domains and classes in turn."""
    picture = _small_jpeg()
    folders = [root / f"domain{domain}" / f"class{name:03d}" for domain in range(DOMAINS) for name in range(CLASSES)]
    for folder in folders:
        folder.mkdir(parents=True)
    started = time.perf_counter()
    for index in range(count):
        tail = index.to_bytes(8, "big").rjust(BYTES_PER_IMAGE - len(picture), b"\0")  # decoders stop before it
        (folders[index % len(folders)] / f"{index:06d}.jpg").write_bytes(picture + tail)
        if index % 50_000 == 49_999:
            print(f"wrote {index + 1:,} images in {time.perf_counter() - started:.0f} s", file=sys.stderr)


def _small_jpeg() -> bytes:
    """A picture that leaves room for what makes each file its own."""
    noise = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((160, 120), Image.Resampling.BICUBIC).save(buffer, format="JPEG", quality=60)
    picture = buffer.getvalue()
    assert len(picture) < BYTES_PER_IMAGE - 8, len(picture)
    return picture


if __name__ == "__main__":
    main()
