"""Which mean and deviation a model's input gets, where they come from, and the warning when nobody chose them."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from support.vendor.tiny_clip import CONFIG, write_tiny_clip
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.cli.server import _Foreground
from vl2v_vendor.engine.models.hash_encoder import HashEncoder
from vl2v_vendor.engine.models.open_clip_files import (
    ModelSpec,
    normalisation_lines,
    normalisation_source,
)
from vl2v_vendor.settings import Settings

HALF = (0.5, 0.5, 0.5)


def warning_about(spec: ModelSpec) -> str | None:
    return normalisation_lines(spec, HashEncoder(4, 2).info).get("warning")


def _spec(folder: Path, preprocess: dict[str, Any] | None = None) -> ModelSpec:
    config = folder / "mine.json"
    config.write_text(json.dumps(CONFIG if preprocess is None else {"model_cfg": CONFIG, "preprocess_cfg": preprocess}))
    return ModelSpec(model_id="mine", config_file=config, checkpoint_file=folder / "mine.safetensors")


@pytest.mark.parametrize(
    ("preprocess", "settings", "sources", "warned"),
    [
        (None, {}, ("open_clip's default", "open_clip's default"), "no mean and no deviation"),
        ({}, {}, ("open_clip's default", "open_clip's default"), "no mean and no deviation"),
        ({"mean": None, "std": HALF}, {}, ("open_clip's default", "preprocess_cfg of mine.json"), "no mean"),
        ({"mean": HALF, "std": HALF}, {}, ("preprocess_cfg of mine.json",) * 2, None),
        (None, {"image_mean": HALF, "image_std": HALF}, ("setting image_mean", "setting image_std"), None),
        (None, {"image_mean": HALF}, ("setting image_mean", "open_clip's default"), "no deviation"),
    ],
)
def test_a_configuration_of_ones_own_that_names_nothing_is_warned_about(
    tmp_path: Path,
    preprocess: dict[str, Any] | None,
    settings: dict[str, Any],
    sources: tuple[str, str],
    warned: str | None,
) -> None:
    spec = replace(_spec(tmp_path, preprocess), **settings)
    found = normalisation_source(spec)
    assert (found["mean"], found["std"]) == sources
    warning = warning_about(spec)
    if warned is None:
        assert warning is None
    else:
        assert warning is not None
        assert warning.startswith(f"mine.json names {warned}, so open_clip's default is used, which is CLIP's")
        assert "preprocess_cfg" in warning
        assert "image_mean" in warning


def test_a_folder_of_open_clip_s_is_a_configuration_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {"mean": HALF}}))
    spec = ModelSpec(model_id="mine", name=f"local-dir:{tmp_path}")
    assert normalisation_source(spec)["mean"] == "preprocess_cfg of open_clip_config.json"
    assert str(warning_about(spec)).startswith("open_clip_config.json names no deviation")


@pytest.mark.parametrize(
    ("name", "pretrained", "source"),
    [
        ("ViT-B-32", "openai", "open_clip's pretrained tag openai"),
        ("ViT-B-32", "weights.pt", "open_clip's default"),
        ("hf-hub:someone/model", None, "the configuration of hf-hub:someone/model, or open_clip's default"),
    ],
)
def test_a_named_model_says_its_source_and_is_not_warned_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, pretrained: str | None, source: str
) -> None:
    (tmp_path / "weights.pt").touch()
    monkeypatch.chdir(tmp_path)
    spec = ModelSpec(model_id="named", name=name, pretrained=pretrained)
    assert normalisation_source(spec) == {"mean": source, "std": source}
    assert warning_about(spec) is None


def test_the_values_and_their_sources_are_one_line(tmp_path: Path) -> None:
    info = replace(HashEncoder(4, 2).info, image_mean=HALF, image_std=(0.25, 0.3, 0.26130258))
    assert normalisation_lines(_spec(tmp_path, {"mean": HALF, "std": HALF}), info) == {
        "pixels": "mean 0.5, 0.5, 0.5 (preprocess_cfg of mine.json), "
        "deviation 0.25, 0.3, 0.2613 (preprocess_cfg of mine.json)"
    }


def _start(data_dir: Path, **model: Any) -> list[tuple[str, str]]:
    """The steps that the operator is shown."""
    settings = Settings(data_dir=data_dir, device="cpu", max_batch_items=1, model_threads=1, **model)
    steps: list[tuple[str, str]] = []

    async def start() -> None:
        async with open_services(settings, lambda label, text: steps.append((label, text))):
            pass

    asyncio.run(start())
    return steps


def test_the_start_says_it_and_warns(tmp_path: Path) -> None:
    spec = write_tiny_clip(tmp_path)
    steps = _start(tmp_path / "data", model_config_file=spec.config_file, pretrained=str(spec.checkpoint_file))
    labels = [label for label, _ in steps]
    assert labels.index("loading") < labels.index("pixels") < labels.index("warning") < labels.index("prices")
    told = dict(steps)
    assert told["pixels"].startswith("mean 0.4815, 0.4578, 0.4082 (open_clip's default), deviation 0.2686, ")
    assert told["warning"].startswith("tiny-clip.json names no mean and no deviation")


def test_the_packaged_teacher_was_trained_with_the_default_and_is_not_warned_about(tmp_path: Path) -> None:
    told = dict(_start(tmp_path))
    assert told["pixels"].startswith("mean 0.4815, 0.4578, 0.4082 (open_clip's default)")
    assert "warning" not in told


def test_a_warning_of_the_start_is_a_warning_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="vl2v_vendor")
    with socket.socket() as listener:
        foreground = _Foreground(Settings(log_format="json"), listener, None, None, None)
        foreground._report("warning", "the mean")
        foreground._report("pixels", "the mean")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "warning the mean"),
        ("INFO", "pixels the mean"),
    ]
