"""Pretrains the tiny student: a small timm ViT that classifies the pretraining classes in the photo style.

    python scripts/train_tiny_student.py --out client/vl2v_client/assets

The weights are written without the classifier. A run that was cut off goes on from its checkpoint.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import timm
import torch
from augmentation import fade, jitter, move, to_batch
from pretraining_shapes import PRETRAINING_CLASS_NAMES, render_arrays
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

ARCHITECTURE = "vit_tiny_patch16_224"
MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
SIZE = 64


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of the asset")
    add("--work", type=Path, default=Path("runs/tiny-student"), help="folder of the checkpoint")
    add("--seed", type=int, default=1_000_002, help="seed of pictures, weights and order")
    add("--steps", type=int, default=4000, help="optimiser steps")
    add("--batch", type=int, default=64, help="pictures per step")
    add("--images", type=int, default=600, help="pictures per class")
    add("--shortcut", type=float, default=0.0, help="probability that a colour goes with the class")
    add("--patch", type=int, default=16, help="width and height of a patch, pixels")
    add("--width", type=int, default=128, help="width of the ViT")
    add("--depth", type=int, default=4, help="layers of the ViT")
    add("--heads", type=int, default=4, help="attention heads of the ViT")
    add("--jitter", type=float, default=0.4, help="strength of random lighting and white balance")
    add("--gray", type=float, default=0.2, help="probability that a picture loses its colour")
    add("--lr", type=float, default=1e-3, help="highest learning rate of AdamW")
    add("--weight-decay", type=float, default=0.05, help="weight decay of AdamW")
    add("--warmup", type=int, default=100, help="steps of linear warm-up, then cosine to zero")
    add("--save-every", type=int, default=500, help="steps between checkpoints")
    add("--workers", type=int, default=2, help="processes that draw pictures, and threads that train")
    return parser.parse_args()


def normalise(batch: Tensor) -> Tensor:
    """Subtracts MEAN and divides by STD, `[B, 3, S, S]`."""
    return (batch - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def accuracy(model: nn.Module, pixels: Tensor, classes: Tensor) -> float:
    """Returns the fraction of pictures, uint8 `[N, S, S, 3]`, whose class the model names."""
    model.eval()
    with torch.inference_mode():
        found = torch.cat([model(normalise(to_batch(part))).argmax(dim=1) for part in torch.split(pixels, 256)])
    model.train()
    return (found == classes).float().mean().item()


def write_asset(model: nn.Module, settings: dict[str, int], folder: Path) -> str:
    """Writes `tiny-student.safetensors` and `.json`, each in one move; returns the sha256 of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.contiguous() for name, value in model.state_dict().items() if not name.startswith("head.")}
    temporary = folder / "tiny-student.safetensors.tmp"
    save_file(weights, temporary, metadata={"format": "pt"})
    digest = hashlib.sha256(temporary.read_bytes()).hexdigest()
    card = {
        "architecture": ARCHITECTURE,
        "arguments": settings,
        "input_size": SIZE,
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "features": settings["embed_dim"],
        "weights_sha256": digest,
    }
    description = folder / "tiny-student.json.tmp"
    description.write_text(json.dumps(card, indent=2) + "\n")
    temporary.chmod(0o644)
    temporary.replace(folder / "tiny-student.safetensors")
    description.replace(folder / "tiny-student.json")
    return digest


def main() -> None:
    """Draws the pictures, trains, and writes the asset."""
    args = parse_arguments()
    torch.set_num_threads(args.workers)
    torch.manual_seed(args.seed)
    names, generator = PRETRAINING_CLASS_NAMES, torch.Generator().manual_seed(args.seed)
    data = render_arrays(["photo"], names, args.images, seed=args.seed, shortcut=args.shortcut, workers=args.workers)
    held_out = render_arrays(["photo"], names, 25, seed=args.seed + 1, shortcut=args.shortcut, workers=args.workers)
    pixels, classes = torch.from_numpy(data.pixels), torch.from_numpy(data.classes)

    settings = {
        "img_size": SIZE,
        "patch_size": args.patch,
        "embed_dim": args.width,
        "depth": args.depth,
        "num_heads": args.heads,
    }
    model = timm.create_model(ARCHITECTURE, num_classes=len(names), **settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, args.lr, total_steps=args.steps + 1, pct_start=args.warmup / args.steps, cycle_momentum=False
    )
    checkpoint, first = args.work / "checkpoint.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        generator.set_state(state["generator"])
        first = state["step"]

    started = time.monotonic()
    for step in range(first + 1, args.steps + 1):
        rows = torch.randint(len(pixels), (args.batch,), generator=generator)
        batch = fade(
            jitter(move(to_batch(pixels[rows]), generator), generator, strength=args.jitter), args.gray, generator
        )
        loss = functional.cross_entropy(model(normalise(batch)), classes[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            rate = (step - first) * args.batch / (time.monotonic() - started)
            print(f"step {step}/{args.steps} loss {loss.item():.3f} {rate:.0f} images/s", flush=True)
        if step % args.save_every == 0 or step == args.steps:
            args.work.mkdir(parents=True, exist_ok=True)
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
            state |= {"schedule": schedule.state_dict(), "generator": generator.get_state()}
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            score = accuracy(model, torch.from_numpy(held_out.pixels), torch.from_numpy(held_out.classes))
            digest = write_asset(model, settings, args.out)
            print(f"step {step} held-out accuracy {score:.3f} weights {digest[:12]}", flush=True)


if __name__ == "__main__":
    main()
