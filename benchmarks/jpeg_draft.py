"""What the setting `jpeg_draft` saves and what it changes: time, pixels and vectors, by the size of the photograph.

Run without arguments; it takes half a minute. The photographs are drawn: noise of all scales, as strong at each as in
nature, in JPEG of quality 90. Times are of one thread, from the file's bytes to the model's pixels, the best of three.
Vectors are the tiny teacher's, whose input is 64 x 64; pixels are compared at 224 x 224.
"""

from __future__ import annotations

import argparse
import io
import logging
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from result import Goal, write_result

from vl2v_vendor.bootstrap import model_spec
from vl2v_vendor.engine.models.open_clip_model import OpenClipModel
from vl2v_vendor.images.image_decoding import PillowImageDecoder
from vl2v_vendor.images.preprocessing import SAFE, SAFE_DRAFT, Preprocessing
from vl2v_vendor.settings import Settings

SIZES = ((640, 480), (1280, 960), (2048, 1536), (4000, 3000))
INPUT_SIZE = 224
REPEATS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=4, help="of each size")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    teacher = OpenClipModel(model_spec(Settings(device="cpu", model_threads=1)))
    rows = [measure(size, arguments.photographs, teacher) for size in SIZES]
    large = rows[-1]
    speed_up, error, cosine = (float(str(large[name])) for name in ("speed-up", "mean error", "lowest cosine"))
    goals = [
        Goal("12 MP, decode and scale, times faster", speed_up, ">= 2", speed_up >= 2),
        Goal("12 MP, mean pixel error of 255", error, "<= 0.5", error <= 0.5),
        Goal("12 MP, cosine of the vectors", cosine, ">= 0.999", cosine >= 0.999),
    ]
    write_result("jpeg_draft", rows, goals, out=arguments.out)


def measure(size: tuple[int, int], count: int, teacher: OpenClipModel) -> dict[str, object]:
    files = [photograph(size, seed) for seed in range(count)]
    exact, draft = decoder(SAFE, INPUT_SIZE), decoder(SAFE_DRAFT, INPUT_SIZE)
    errors = np.abs(pixels(draft, files).astype(int) - pixels(exact, files).astype(int))
    exact_seconds, draft_seconds = (sum(seconds(each, file) for file in files) / count for each in (exact, draft))
    small = teacher.info.image_size
    vectors = [teacher.encode_images(pixels(decoder(policy, small), files)) for policy in (SAFE, SAFE_DRAFT)]
    return {
        "photograph": f"{size[0]} x {size[1]}",
        "exact ms": 1000 * exact_seconds,
        "draft ms": 1000 * draft_seconds,
        "speed-up": round(exact_seconds / draft_seconds, 2),
        "mean error": round(float(errors.mean()), 3),
        "max error": int(errors.max()),
        "lowest cosine": round(float((vectors[0] * vectors[1]).sum(axis=1).min()), 5),
    }


def photograph(size: tuple[int, int], seed: int) -> bytes:
    """A JPEG whose detail halves in strength with every halving of its scale."""
    random = np.random.default_rng(seed)
    total, cells = np.zeros((size[1], size[0], 3), dtype=np.float32), 4
    while cells <= size[0]:
        grid = random.standard_normal((cells * size[1] // size[0], cells, 3)).astype(np.float32)
        total += np.stack([enlarge(grid[..., channel], size) for channel in range(3)], axis=-1) / cells
        cells *= 2
    scaled = 128 + 50 * total / total.std()
    file = io.BytesIO()
    Image.fromarray(scaled.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
    return file.getvalue()


def enlarge(channel: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    return np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC))


def decoder(policy: str, size: int) -> PillowImageDecoder:
    return PillowImageDecoder(Preprocessing(size, policy=policy), max_item_bytes=50_000_000, max_pixels=50_000_000)


def pixels(each: PillowImageDecoder, files: list[bytes]) -> NDArray[np.uint8]:
    return np.stack([each.decode(file).model_input for file in files])


def seconds(each: PillowImageDecoder, file: bytes) -> float:
    spent = []
    for _ in range(REPEATS):
        started = time.thread_time()
        each.decode(file)
        spent.append(time.thread_time() - started)
    return min(spent)


if __name__ == "__main__":
    main()
