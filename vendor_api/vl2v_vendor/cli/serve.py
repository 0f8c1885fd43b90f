"""`vl2v-vendor serve` and `parity`: selling a model's vectors, and what a precision costs before it is sold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from vl2v_vendor.cli.console import OUTPUT, DatabaseOption, JsonOption, print_line, show, show_table
from vl2v_vendor.domain.errors import ItemFailure, ModelLoadFailed

if TYPE_CHECKING:
    from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch
    from vl2v_vendor.engine.models.vector_checks import ParityReport
    from vl2v_vendor.settings import Settings

_MAX_IMAGES = 256
_ADDRESS = Group("Address", sort_key=0)
_MODEL = Group("Model", sort_key=0.5)

Model = Annotated[str | None, Parameter(group=_MODEL, help="An open_clip architecture, such as ViT-B-16.")]
Pretrained = Annotated[str | None, Parameter(group=_MODEL, help="Its pretrained tag, or a checkpoint file.")]
ModelConfig = Annotated[Path | None, Parameter(group=_MODEL, help="An open_clip model configuration (JSON).")]
Device = Annotated[str | None, Parameter(group=_MODEL, help="auto, cpu, cuda or cuda:N. (default: auto)")]


def serve(
    *,
    host: Annotated[str | None, Parameter(group=_ADDRESS, help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[
        int | None, Parameter(group=_ADDRESS, help="Port to listen on; 0 takes a free one. (default: 8000)")
    ] = None,
    database: DatabaseOption = None,
    model: Model = None,
    pretrained: Pretrained = None,
    model_config: ModelConfig = None,
    model_id: Annotated[str | None, Parameter(group=_MODEL, help="The model's name on the price list.")] = None,
    device: Device = None,
    precision: Annotated[
        str | None, Parameter(group=_MODEL, help="fp32, fp16, bf16 or int8. (default: fp32; fp16 on CUDA)")
    ] = None,
    encoder: Annotated[
        str | None, Parameter(group=_MODEL, help="open_clip, or hash for tests without a model.")
    ] = None,
    log_level: Annotated[
        str | None, Parameter(group=OUTPUT, help="debug, info, warning or error. (default: info)")
    ] = None,
) -> None:
    """Sell embeddings over HTTP. With nothing configured: SQLite and the packaged tiny teacher.

    Every setting can also come from VL2V_VENDOR_* variables or the TOML file that VL2V_VENDOR_CONFIG names.
    """
    from vl2v_vendor.settings import load_settings

    settings = load_settings(
        host=host,
        port=port,
        database_url=database,
        model=model,
        pretrained=pretrained,
        model_config_file=model_config,
        model_id=model_id,
        device=device,
        precision=precision,
        encoder=encoder,
        log_level=log_level,
    )
    from vl2v_vendor.cli.server import run_server  # after the settings, whose faults need no web stack

    run_server(settings, database_option=database)


def parity(
    *,
    precision: Annotated[str, Parameter(group=_MODEL, help="What to compare with fp32: int8, bf16 or fp16.")] = "int8",
    images: Annotated[Path | None, Parameter(help="Folder of images; at most 256. (default: built-in)")] = None,
    model: Model = None,
    pretrained: Pretrained = None,
    model_config: ModelConfig = None,
    device: Device = None,
    as_json: JsonOption = False,
) -> int:
    """Compare a precision's vectors with fp32, image by image; exit code 1 if int8 would not be sold."""
    from vl2v_vendor.settings import load_settings

    settings = load_settings(
        model=model, pretrained=pretrained, model_config_file=model_config, device=device, precision=precision
    )
    logging.disable(logging.ERROR)  # of open_clip and the exporter, which report every step
    report = _measure(settings, images)
    show(asdict(report), partial(_show_report, report), as_json=as_json)
    return int(report.precision == "int8" and not report.lowest >= settings.int8_min_cosine)


def _measure(settings: Settings, folder: Path | None) -> ParityReport:
    from vl2v_vendor.bootstrap import model_spec
    from vl2v_vendor.engine.models.model_loading import load_pair
    from vl2v_vendor.engine.models.tokenizer import OpenClipTokenizer
    from vl2v_vendor.engine.models.vector_checks import measure_parity

    spec = model_spec(settings)
    exact, candidate = load_pair(spec)
    tokenizer = OpenClipTokenizer(spec, context_length=exact.info.context_length)
    pixels = None if folder is None else _read_images(folder, exact.info, settings)
    return measure_parity(exact, candidate, tokenizer, pixels)


def _read_images(folder: Path, info: ModelInfo, settings: Settings) -> PixelBatch:
    """Read `[N, S, S, 3]`: the folder's first images by name; whatever is no image is passed over."""
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


def _show_report(report: ParityReport) -> None:
    rows = [_summary("images", report.image_cosines), _summary("texts", report.text_cosines)]
    print_line(f"{report.model_id}: {report.precision} against fp32, cosines")
    show_table(["", "count", "lowest", "median", "highest"], rows)
    print_line(
        f"The same of {len(report.text_cosines)} texts is nearest for {report.same_nearest_text:.1%} of the images."
    )


def _summary(name: str, cosines: Sequence[float]) -> list[object]:
    return [name, len(cosines), f"{min(cosines):.5f}", f"{median(cosines):.5f}", f"{max(cosines):.5f}"]
