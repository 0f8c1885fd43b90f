"""Trains the tiny teacher: a small CLIP, in open_clip's own format, on procedural pictures of every style.

    python scripts/train_tiny_teacher.py --out vendor_api/vl2v_vendor/assets

The pictures' colours are independent of their classes, and their seeds are none of the benchmark's. The loss is CLIP's,
with every true caption of a picture as a positive (UniCL, arXiv 2204.03610): "a photo of a house" is true of each house
in the batch. A run that was cut off goes on from its checkpoint.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from augmentation import jitter, move, stylise, to_batch
from captions import CaptionTable, build_captions, is_true
from pretraining_shapes import PRETRAINING_CLASS_NAMES, ShapeArrays, render_arrays
from teacher_model import build_model, describe_model, make_optimizers, normalise, warm_up_texts, write_asset
from torch import Tensor, nn
from torch.nn import functional

from vl2v_client.data.shapes import SHORTCUT_PROBABILITY
from vl2v_client.data.shapes.drawing_styles import DEVELOPMENT_STYLES, STYLES
from vl2v_client.data.shapes.objects import CLASS_NAMES
from vl2v_client.data.shapes.scene import COLOURS

ALL_STYLES = STYLES + DEVELOPMENT_STYLES
ALL_CLASSES = CLASS_NAMES + PRETRAINING_CLASS_NAMES
TEMPLATE = "a photo of a {}"
UNKNOWN = -2


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the asset")
    add("--work", type=Path, default=Path("runs/tiny-teacher"), help="folder of the pictures and the checkpoint")
    add("--seed", type=int, default=1_000_001, help="seed of pictures, weights and order")
    add("--steps", type=int, default=1600, help="optimiser steps")
    add("--batch", type=int, default=64, help="pictures per step")
    add("--images", type=int, default=200, help="pictures per style and class")
    add("--width", type=int, default=160, help="width of the image tower")
    add("--layers", type=int, default=5, help="layers of the image tower")
    add("--embed-dim", type=int, default=128, help="width of the shared embedding")
    add("--lr", type=float, default=2e-3, help="highest learning rate, of Muon (matrices) and AdamW (the rest)")
    add("--weight-decay", type=float, default=0.05, help="weight decay of the matrices")
    add("--text-steps", type=int, default=300, help="steps of the text tower alone, before the joint training")
    add("--text-lr", type=float, default=0.2, help="factor on the learning rate of the text tower in joint training")
    add("--warmup", type=int, default=60, help="steps of linear warm-up")
    add("--decay", type=float, default=0.4, help="last fraction of the steps, in which the rate falls to zero")
    add("--patch-dropout", type=float, default=0.25, help="fraction of patches left out until the decay (FLIP)")
    add("--stylised", type=float, default=0.25, help="fraction of pictures that get a further simple style")
    add("--save-every", type=int, default=200, help="steps between checkpoints, each also written as the asset")
    add("--workers", type=int, default=2, help="processes that draw pictures, and threads that train")
    return parser.parse_args()


def draw_pictures(args: argparse.Namespace) -> ShapeArrays:
    """Returns the training pictures, from the work folder if they were drawn before."""
    path = args.work / f"pictures-{args.seed}-{args.images}.npz"
    if not path.exists():
        data = render_arrays(ALL_STYLES, ALL_CLASSES, args.images, seed=args.seed, shortcut=0.0, workers=args.workers)
        with path.with_suffix(".tmp").open("wb") as file:
            np.savez(file, **vars(data))
        path.with_suffix(".tmp").replace(path)
    with np.load(path) as stored:
        return ShapeArrays(**stored)


def rate_factor(step: int, args: argparse.Namespace) -> float:
    """Returns the learning rate's factor: linear warm-up, constant, linear decay."""
    warming, falling = (step + 1) / args.warmup, (args.steps - step) / (args.decay * args.steps)
    return float(max(0.0, min(1.0, warming, falling)))


def contrast(images: Tensor, texts: Tensor, truth: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric loss with several positives.

    Args:
        images: unit vectors, `[B, D]`.
        texts: unit vectors of the distinct captions, `[C, D]`.
        truth: whether a caption is true of a picture, bool `[B, C]`.
        scale: inverse temperature.
    """
    logits, positive = scale * images @ texts.T, truth.float()
    of_images = functional.cross_entropy(logits, positive / positive.sum(dim=1, keepdim=True))
    logits, positive = logits[:, truth.any(dim=0)], positive[:, truth.any(dim=0)]
    of_texts = functional.cross_entropy(logits.T, (positive / positive.sum(dim=0, keepdim=True)).T)
    return (of_images + of_texts) / 2


def measure_zero_shot(
    model: open_clip.CLIP, tokenizer: open_clip.SimpleTokenizer, seed: int, images: int
) -> dict[str, float]:
    """Returns the accuracy of "a photo of a ..." on fresh benchmark pictures, per style."""
    model.eval()
    scores = {}
    with torch.inference_mode():
        classifier = model.encode_text(tokenizer([TEMPLATE.format(name) for name in CLASS_NAMES]), normalize=True)
        for style in ALL_STYLES:
            fresh = render_arrays([style], CLASS_NAMES, images, seed=seed, shortcut=SHORTCUT_PROBABILITY)
            vectors = model.encode_image(normalise(to_batch(torch.from_numpy(fresh.pixels))), normalize=True)
            found = (vectors @ classifier.T).argmax(dim=1)
            scores[style] = (found == torch.from_numpy(fresh.classes)).float().mean().item()
    model.train()
    return scores


def train_step(
    model: open_clip.CLIP,
    data: dict[str, Tensor],
    captions: CaptionTable,
    tokens: Tensor,
    args: argparse.Namespace,
    generator: torch.Generator,
) -> Tensor:
    """Returns the loss of one random batch."""
    rows = torch.randint(len(data["pixels"]), (args.batch,), generator=generator)
    batch, changed = stylise(move(to_batch(data["pixels"][rows]), generator), args.stylised, generator)
    facts = data["facts"][rows].clone()
    facts[changed, 1:] = UNKNOWN
    numbers = torch.unique(torch.cat([captions.draw(facts, generator), captions.prompts]))
    truth = is_true(captions.facts[numbers][None], facts[:, None])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        images = model.encode_image(normalise(jitter(batch, generator)), normalize=True)
        texts = model.encode_text(tokens[numbers], normalize=True)
    return contrast(images.float(), texts.float(), truth, model.logit_scale.exp())


def save(path: Path, stateful: list[Any], generator: torch.Generator, step: int) -> None:
    """Writes a checkpoint in one move."""
    state = {"parts": [part.state_dict() for part in stateful], "step": step}
    state |= {"generator": generator.get_state(), "global_generator": torch.get_rng_state()}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def restore(path: Path, stateful: list[Any], generator: torch.Generator) -> int:
    """Goes back to a checkpoint, if there is one; returns the number of steps that are done."""
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    for part, saved in zip(stateful, state["parts"], strict=True):
        part.load_state_dict(saved)
    generator.set_state(state["generator"])
    torch.set_rng_state(state["global_generator"])
    return int(state["step"])


def main() -> None:
    """Draws the pictures, trains, and writes the asset at every checkpoint."""
    args = parse_arguments()
    torch.set_num_threads(args.workers)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    drawn = draw_pictures(args)
    facts = np.stack([drawn.classes, drawn.styles, drawn.colours], axis=1)
    data = {"pixels": torch.from_numpy(drawn.pixels), "facts": torch.from_numpy(facts)}
    captions = build_captions(ALL_CLASSES, ALL_STYLES, tuple(COLOURS))

    settings = describe_model(args)
    model = build_model(settings, args.patch_dropout)
    tokenizer = open_clip.SimpleTokenizer(context_length=settings["text_cfg"]["context_length"])
    tokens = tokenizer(captions.texts)
    optimizers = make_optimizers(model, args)
    schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: rate_factor(step, args)) for o in optimizers]
    stateful = [model, *optimizers, *schedules]
    checkpoint = args.work / "checkpoint.pt"
    first = restore(checkpoint, stateful, generator)
    if not first:
        warm_up_texts(model, captions, tokens, args, generator)

    started, whole = time.monotonic(), math.ceil(args.steps * (1 - args.decay))
    for step in range(first + 1, args.steps + 1):
        if step > whole:
            model.visual.patch_dropout = nn.Identity()
        loss = train_step(model, data, captions, tokens, args, generator)
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        if step % 25 == 0:
            rate = (step - first) * args.batch / (time.monotonic() - started)
            print(f"step {step}/{args.steps} loss {loss.item():.3f} {rate:.0f} images/s", flush=True)
        if step % args.save_every == 0 or step == args.steps:
            save(checkpoint, stateful, generator, step)
            write_asset(model, settings, args.out)
            scores = measure_zero_shot(model, tokenizer, seed=0, images=20)
            print(f"step {step}", {style: f"{score:.3f}" for style, score in scores.items()}, flush=True)


if __name__ == "__main__":
    main()
