"""Disk and memory of a run whose views would fill a disk, and how fast views are rendered beside training.

*Run*: `distill` on small synthetic JPEGs, four views of each, 5 align and 10 distill steps. The student is the tiny one
at 64 pixels; with `--student lite0` an EfficientNet-lite0 with random weights at 32, which trains as the default preset
trains one on photographs: ridge, probe, the first half frozen. The teacher is local, a small CLIP of width 512 with
random weights, so that nothing is bought. Memory is the peak of the client's resident set. Disk is what the run's
folder, the client's cache and files without a name take, sampled twice a second; images and the teacher's vectors are
not counted.

*Loader*: views of synthetic JPEGs of 500 x 375 pixels rendered at 224 pixels, nothing kept, beside training steps of an
EfficientNet-lite0 with random weights on views that are in memory; in turn, median of the rounds. Both by CPU time, the
step in one thread, so that other work on the machine hardly counts.

    python benchmarks/native_views.py [--images 5000] [--rounds 5] [--student lite0] [--home DIR]

Images are those of the two source domains without the hold-out: 25 % more files are made for that, and a tenth for the
target.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image, ImageFilter
from random_models import save_random_model
from result import Goal, write_result
from safetensors.torch import save_file

from vl2v_client.config.run import TINY
from vl2v_client.core.values import Sample
from vl2v_client.data.view_pixels import ViewPixels
from vl2v_client.data.views import views_for
from vl2v_client.student.loss.methods import TrainingConfig, erm
from vl2v_client.student.model.card import InputFormat
from vl2v_client.student.model.classifier import new_classifier, student_input
from vl2v_client.student.model.spec import StudentSpec

DOMAINS, CLASSES, VIEWS, SIDE = ("art", "photo", "target"), 10, 4, 96
LIMIT_GIB = 2.0
STEPS = ("--align-steps", "5", "--distill-steps", "10", "--evaluate-every", "10", "--device", "cpu")
TEACHER = {
    "embed_dim": 512,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 64, "head_width": 32, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 1},
}
LITE0 = StudentSpec("tf_efficientnet_lite0", InputFormat(224, (0.5,) * 3, (0.5,) * 3, "bicubic"), 1280)
LOADED = 24
"""Views of a step."""

Row = dict[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000, help="training images; 0 measures the loader alone")
    parser.add_argument("--rounds", type=int, default=5, help="turns of loader and step; 0 measures the run alone")
    parser.add_argument("--student", choices=(TINY, "lite0"), default=TINY, help="of the run")
    parser.add_argument("--home", type=Path, help="folder for images and run; a temporary one by default")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows: list[Row] = []
    goals: list[Goal] = []
    with tempfile.TemporaryDirectory(dir=arguments.home) as home:
        if arguments.images:
            memory, disk = measure_run(Path(home), arguments.images, arguments.student, rows)
            of_run = f"of a run, {arguments.images:,} images x {VIEWS} views, GiB"
            goals.append(Goal(f"memory {of_run}", memory, f"<= {LIMIT_GIB:g}", memory <= LIMIT_GIB))
            goals.append(Goal(f"disk {of_run}", disk, f"<= {LIMIT_GIB:g}", disk <= LIMIT_GIB))
        if arguments.rounds:
            ratio = measure_loader(Path(home), arguments.rounds, rows)
            goals.append(Goal("views per CPU second, loader / step, 224 px", ratio, ">= 1", ratio >= 1))
    name = "native_views" if arguments.student == TINY else f"native_views_{arguments.student}"
    write_result(name, rows, goals, out=arguments.out)


def measure_run(home: Path, images: int, student: str, rows: list[Row]) -> tuple[float, float]:
    """Peak memory and disk of `distill`, in GiB."""
    data, files = home / "data", -(-images * 5 // 4 // 2 // CLASSES)
    jobs = [
        (data / domain / f"class{label}", files if domain != "target" else files // 10 or 1, seed)
        for seed, (domain, label) in enumerate((domain, label) for domain in DOMAINS for label in range(CLASSES))
    ]
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw_folder, jobs))
    config = home / "teacher.json"
    config.write_text(json.dumps(TEACHER))
    teacher = save_random_model(home / "model", str(config))
    out, cache = home / "run", home / "client.db"
    words = ["distill", "--data", str(data), "--target-domain", "target", "--out", str(out), "--views", str(VIEWS)]
    words += ["--train-views", str(VIEWS), *student_words(home, student), *STEPS, "--yes", "--json"]
    words += ["--local-teacher", str(teacher.config_file), "--local-weights", str(teacher.checkpoint_file)]
    started, disk_bytes = time.perf_counter(), 0
    with tempfile.TemporaryFile() as said:
        environment = {**os.environ, "VL2V_CACHE": str(cache), "TMPDIR": str(home)}
        process = subprocess.Popen([sys.executable, "-m", "vl2v_client", *words], env=environment, stdout=said)
        while True:
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
            if done:
                break
            disk_bytes = max(disk_bytes, taken_bytes(process.pid, out, cache))
            time.sleep(0.5)
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        answer = said.read()
    if process.returncode != 0:
        sys.exit(f"distill ended with {process.returncode}")
    seconds, memory = time.perf_counter() - started, usage.ru_maxrss / 2**20
    disk = max(disk_bytes, taken_bytes(0, out, cache)) / 2**30
    report = json.loads(answer)
    form = f"run: {report['counts']['train']:,} images x {VIEWS} views, student {report['student']}"
    rows.append(row(form, seconds, f"memory {memory:.2f} GiB, disk {disk:.2f} GiB"))
    return round(memory, 2), round(disk, 2)


def student_words(home: Path, student: str) -> list[str]:
    """Options that name the student; the weights of one with random weights are written first."""
    if student == TINY:
        return ["--student", TINY, "--no-probe"]
    torch.manual_seed(0)
    weights = home / "student.safetensors"
    save_file(timm.create_model(LITE0.architecture).state_dict(), weights)
    return ["--student", LITE0.architecture, "--student-weights", str(weights), "--student-size", "32"]


def taken_bytes(process: int, out: Path, cache: Path) -> int:
    """Disk space of the run's folder without vectors, the cache, and files without a name that the process has open."""
    sizes = [path.lstat() for path in out.rglob("*") if path.suffix not in (".npy",)] if out.exists() else []
    sizes += [path.stat() for path in cache.parent.glob(f"{cache.name}*")]
    for descriptor in Path(f"/proc/{process}/fd").glob("*") if process else ():
        try:
            facts = descriptor.stat()
        except OSError:  # closed meanwhile
            continue
        if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0:
            sizes.append(facts)
    return sum(512 * facts.st_blocks for facts in sizes)


def draw_folder(job: tuple[Path, int, int]) -> None:
    """Write JPEGs of random colour fields to a folder."""
    folder, files, seed = job
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(files):
        draw(random, SIDE, SIDE).save(folder / f"{number:06d}.jpg", quality=85)


def draw(random: np.random.Generator, width: int, height: int) -> Image.Image:
    """An image with edges, gradients and noise, whose JPEG has about the size of a photograph's."""
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))
    noise = noise.filter(ImageFilter.GaussianBlur(1))
    return Image.fromarray(np.clip(smooth + np.asarray(noise, dtype=np.int16) // 2 - 64, 0, 255).astype(np.uint8))


def measure_loader(home: Path, rounds: int, rows: list[Row]) -> float:
    """Views that the loader renders in the time in which a step trains on one."""
    random, samples = np.random.default_rng(0), []
    for number in range(LOADED):
        samples.append(Sample(home / f"large{number}.jpg", "photo", number % CLASSES))
        draw(random, 500, 375).save(samples[-1].path, quality=90)
    views = [views_for(f"{number:064x}", (500, 375), 10, 0, "styles") for number in range(LOADED)]
    pixels = ViewPixels(samples, views, LITE0.input.size)
    classifier = new_classifier(LITE0, None, class_count=CLASSES, seed=0)
    optimizer = torch.optim.Adam(classifier.student.parameters(), lr=erm(TrainingConfig()).stages[0].learning_rate)
    labels = torch.tensor([sample.class_index for sample in samples])
    loads, steps, threads = [], [], torch.get_num_threads()
    torch.set_num_threads(1)
    for turn in range(rounds + 1):  # the first one allocates
        started = time.process_time()
        loaded = pixels[np.arange(LOADED), random.integers(0, 10, LOADED)]
        rendered = time.process_time()
        outputs = classifier.student(student_input(loaded, LITE0.input, torch.device("cpu")))
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(outputs, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if turn:
            loads.append(rendered - started)
            steps.append(time.process_time() - rendered)
    torch.set_num_threads(threads)
    load, step = statistics.median(loads), statistics.median(steps)
    rows.append(
        row(f"loader: {LOADED} views, 224 px, 500 x 375 JPEGs", load, f"{LOADED / load:.1f} views per CPU second")
    )
    rows.append(
        row(f"step: {LOADED} views, 224 px, {LITE0.architecture}", step, f"{LOADED / step:.1f} views per CPU second")
    )
    return round(step / load, 2)


def row(form: str, seconds: float, figures: str) -> Row:
    """A line of the table."""
    return {"what": form, "seconds": round(seconds, 2), "figures": figures}


if __name__ == "__main__":
    main()
