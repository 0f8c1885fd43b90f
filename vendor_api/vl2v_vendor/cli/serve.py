"""`vl2v-vendor serve`: from one command to the first sold vector."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vl2v_vendor.settings import load_settings


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on. (default: 127.0.0.1)")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one. (default: 8000)")] = None,
    database: Annotated[str | None, typer.Option(help="sqlite:///FILE or postgresql://USER@HOST/NAME.")] = None,
    model: Annotated[str | None, typer.Option(help="An open_clip architecture, such as ViT-B-16.")] = None,
    pretrained: Annotated[str | None, typer.Option(help="Its pretrained tag, or a checkpoint file.")] = None,
    model_config: Annotated[Path | None, typer.Option(help="An open_clip model configuration (JSON).")] = None,
    model_id: Annotated[str | None, typer.Option(help="The model's name on the price list.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or cuda:N. (default: auto)")] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16, bf16 or int8. (default: fp32; fp16 on CUDA)")
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="open_clip, or hash for tests without a model.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error. (default: info)")] = None,
) -> None:
    """Sell embeddings over HTTP. With nothing configured: SQLite and the packaged tiny teacher.

    Every setting can also come from VL2V_VENDOR_* variables or the TOML file that VL2V_VENDOR_CONFIG names.
    """
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
    # The web stack takes half a second to import, which the other commands need not pay.
    from vl2v_vendor.cli.server import run_server

    run_server(settings, database_option=database)
