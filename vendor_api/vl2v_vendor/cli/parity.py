"""`vl2v-vendor parity`: what a precision costs, before it is sold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from vl2v_vendor.cli.console import JsonOption, print_line, show_json, show_table
from vl2v_vendor.domain.errors import ItemFailure, ModelLoadFailed
from vl2v_vendor.settings import Settings, load_settings

if TYPE_CHECKING:
    from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch
    from vl2v_vendor.engine.models.parity import ParityReport

_MAX_IMAGES = 256


def parity(
    precision: Annotated[str, typer.Option(help="What to compare with fp32: int8, bf16 or fp16.")] = "int8",
    images: Annotated[Path | None, typer.Option(help="Folder of images; at most 256. (default: built-in)")] = None,
    model: Annotated[str | None, typer.Option(help="An open_clip architecture, such as ViT-B-16.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="Its pretrained tag, or a checkpoint file.")] = None,
    model_config: Annotated[Path | None, typer.Option(help="An open_clip model configuration (JSON).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. (default: auto)")] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare a precision's vectors with fp32, image by image; exit code 1 if int8 would not be sold."""
    settings = load_settings(
        model=model, pretrained=pretrained, model_config_file=model_config, device=device, precision=precision
    )
    logging.disable(logging.ERROR)  # of open_clip and the exporter, which tell of every step
    report = _measure(settings, images)
    if as_json:
        show_json(report.as_dict())
    else:
        _show(report)
    if report.precision == "int8" and not report.lowest >= settings.int8_min_cosine:
        raise typer.Exit(1)


def _measure(settings: Settings, folder: Path | None) -> ParityReport:
    from vl2v_vendor.bootstrap import model_spec
    from vl2v_vendor.engine.models.model_loading import load_pair
    from vl2v_vendor.engine.models.parity import measure_parity
    from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer

    spec = model_spec(settings)
    exact, candidate = load_pair(spec)
    tokenizer = OpenClipTokenizer(spec, context_length=exact.info.context_length)
    pixels = None if folder is None else _read_images(folder, exact.info, settings)
    return measure_parity(exact, candidate, tokenizer, pixels)


def _read_images(folder: Path, info: ModelInfo, settings: Settings) -> PixelBatch:
    """`[N, S, S, 3]`: the folder's first images by name; whatever is no image is passed over."""
    import numpy as np

    from vl2v_vendor.images.image_decoding import PillowImageDecoder
    from vl2v_vendor.images.preprocessing import preprocessing_of

    limits = settings.limits
    decoder = PillowImageDecoder(
        preprocessing_of(info), max_item_bytes=limits.max_item_bytes, max_pixels=limits.max_pixels
    )
    pixels = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            pixels.append(decoder.decode(file.read_bytes()).model_input)
        except ItemFailure:
            continue
        if len(pixels) == _MAX_IMAGES:
            break
    if not pixels:
        raise ModelLoadFailed(f"no image in {folder}; name a folder of JPEG, PNG, WebP, GIF or BMP files")
    return np.stack(pixels)


def _show(report: ParityReport) -> None:
    rows = [_summary("images", report.image_cosines), _summary("texts", report.text_cosines)]
    print_line(f"{report.model_id}: {report.precision} against fp32, cosines")
    show_table(["", "count", "lowest", "median", "highest"], rows)
    print_line(
        f"The same of {len(report.text_cosines)} texts is nearest for {report.same_nearest_text:.1%} of the images."
    )


def _summary(name: str, cosines: Sequence[float]) -> list[object]:
    return [name, len(cosines), f"{min(cosines):.5f}", f"{median(cosines):.5f}", f"{max(cosines):.5f}"]
