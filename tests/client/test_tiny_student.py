"""The shipped student: timm loads its weights strictly, and its card tells how to feed it."""

import hashlib
import json
from importlib.resources import files
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file

ASSETS = Path(str(files("vl2v_client"))) / "assets"


def test_weights_load_strictly_and_the_card_is_true() -> None:
    card = json.loads((ASSETS / "tiny-student.json").read_text())
    weights = ASSETS / "tiny-student.safetensors"
    model = timm.create_model(card["architecture"], num_classes=0, **card["arguments"])
    model.load_state_dict(load_file(weights), strict=True)
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == card["weights_sha256"]
    assert 400_000 <= sum(parameter.numel() for parameter in model.parameters()) <= 1_200_000
    with torch.inference_mode():
        features = model.eval()(torch.zeros(2, 3, card["input_size"], card["input_size"]))
    assert features.shape == (2, card["features"])
    assert torch.isfinite(features).all()


def test_the_card_names_a_normalisation() -> None:
    card = json.loads((ASSETS / "tiny-student.json").read_text())
    assert len(card["mean"]) == len(card["std"]) == 3
    assert all(value > 0 for value in card["std"])
    assert card["interpolation"] == "bicubic"
