"""The student under timm's own names, its head folded into timm's classifier.

A linear head becomes timm's classifier as it is. The text classifier divides by the length of each image's embedding,
which no classifier of timm does: `softmax(s cos(z, txt))` becomes `softmax(a z . txt)` with one `a` for all images. The
likeliest class is the same for every image, the probabilities on average; the exact head is a file beside the weights.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vl2v_client.core.errors import UsageError
from vl2v_client.core.values import PixelSource
from vl2v_client.evaluation.accuracy import log_probabilities, match_temperature
from vl2v_client.export.agreement import Agreement, compare
from vl2v_client.student.model.classifier import StudentBundle, in_chunks, student_input
from vl2v_client.student.model.spec import StudentCard

WEIGHTS_FILE = "model.safetensors"
HEAD_FILE = "cosine_head.safetensors"
CONFIG_FILE = "config.json"
CONFIG_ENTRY = "config"  # the same, in the header of the weights
TAG = "vl2v"
_CHUNK = 64


def write_timm(folder: Path, bundle: StudentBundle, pixels: PixelSource, wanted: NDArray[np.float64]) -> Agreement:
    """Write `model.safetensors`, and the exact head if it is a text classifier; read both back and compare.

    Args:
        folder: Where to write.
        bundle: Student, on the CPU.
        pixels: `[N, S, S, 3]` uint8, views that both are asked about.
        wanted: The student's own probabilities of them, `[N, C]`.

    Raises:
        UsageError: Timm's architecture has no classifier that can hold the head.
        RunError: What was written answers otherwise.
    """
    card = bundle.card
    if card.student.tower is not None:
        raise UsageError("the student is an open_clip image tower, which timm does not have: export it as onnx or vl2v")
    model = _folded(bundle)
    exact = bundle.classifier.head is None
    factor = 1 / card.temperature if exact else _sharpness(_answers(model, card, pixels), wanted)
    _scale(classifier_of(model, card)[1], factor)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    about = {"format": "pt", CONFIG_ENTRY: json.dumps(hub_config(card))}
    save_file(tensors, folder / WEIGHTS_FILE, metadata=about)
    if not exact:
        save_file(_cosine_head(bundle), folder / HEAD_FILE)
        compare(HEAD_FILE, _of_cosine_head(folder, card, pixels), wanted)
    found = timm_probabilities(read_timm(folder / WEIGHTS_FILE, card), card, pixels)
    return compare(WEIGHTS_FILE, found, wanted, exact=exact)


def read_timm(weights: Path, card: StudentCard) -> nn.Module:
    """Return the model as timm reads it: a missing or unexpected name is an error of its own."""
    model: nn.Module = timm.create_model(
        card.student.architecture,
        num_classes=len(card.class_names),
        checkpoint_path=str(weights),
        **card.student.arguments,
    )
    return model.eval()


def read_hub(folder: Path) -> nn.Module:
    """Return the model as timm reads it by `config.json`, which names the architecture and its arguments."""
    model: nn.Module = timm.create_model(f"local-dir:{folder.resolve()}", pretrained=True)
    return model.eval()


def timm_probabilities(model: nn.Module, card: StudentCard, pixels: PixelSource) -> NDArray[np.float64]:
    """Return the softmax `[N, C]` of what timm's model says of views `[N, S, S, 3]` uint8."""
    return np.exp(log_probabilities(_answers(model, card, pixels)))


def hub_config(card: StudentCard) -> dict[str, Any]:
    """Return `config.json` in the format of timm's hub; its preprocessing is how the student's views are rendered."""
    wanted, names = card.student.input, list(card.class_names)
    size = [3, wanted.size, wanted.size]
    config = {
        "architecture": card.student.architecture,
        "num_classes": len(names),
        "num_features": card.student.features,
        "label_names": names,
        "pretrained_cfg": {
            "tag": TAG,
            "custom_load": False,
            "input_size": size,
            "interpolation": "bicubic",  # of `render_view`
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(wanted.mean),
            "std": list(wanted.std),
            "num_classes": len(names),
            "license": "other",
        },
    }
    return {**config, "model_args": dict(card.student.arguments)} if card.student.arguments else config


@torch.no_grad()
def _folded(bundle: StudentBundle) -> nn.Module:
    """Return timm's model with the backbone's weights, and projection and classifier as one linear layer."""
    card, student, head = bundle.card, bundle.classifier.student, bundle.classifier.head
    projection = student.projection
    weight, bias = projection.weight.double(), projection.bias.double()
    if head is not None:
        matrix = torch.from_numpy(head.matrix).double()
        weight, bias = matrix @ weight, matrix @ bias
    model: nn.Module = timm.create_model(
        card.student.architecture, num_classes=len(card.class_names), **card.student.arguments
    )
    name, classifier = classifier_of(model, card)
    state = {**student.backbone.state_dict(), f"{name}.weight": weight.float(), f"{name}.bias": bias.float()}
    if state.keys() != model.state_dict().keys() or classifier.in_features != card.student.features:
        raise _no_place(card)
    model.load_state_dict(state)
    return model.eval()


def classifier_of(model: nn.Module, card: StudentCard) -> tuple[str, nn.Linear]:
    """Return the name and the module of a timm model's classifier.

    Raises:
        UsageError: It has none that can hold a student's head.
    """
    getter: Any = getattr(model, "get_classifier", lambda: None)
    found = getter()
    if not isinstance(found, nn.Linear) or found.bias is None:
        raise _no_place(card)
    return next(name for name, module in model.named_modules() if module is found), found


def _no_place(card: StudentCard) -> UsageError:
    return UsageError(
        f"timm's {card.student.architecture!r} does not end in one linear layer on the student's features, so the head "
        "has no place in it: export the student as onnx or vl2v"
    )


@torch.no_grad()
def _scale(classifier: nn.Linear, factor: float) -> None:
    classifier.weight.mul_(factor)
    classifier.bias.mul_(factor)


def _sharpness(raw: NDArray[np.float32], wanted: NDArray[np.float64]) -> float:
    """Return the factor of raw logits `[N, C]` at which their softmax is nearest to the student's probabilities."""
    logs = np.log(np.maximum(wanted, 1e-12))
    near = float((logs - logs.mean(axis=1, keepdims=True)).std())
    near /= max(float((raw - raw.mean(axis=1, keepdims=True)).std()), 1e-12)
    return near / match_temperature((near * raw).astype(np.float32), wanted)


def _cosine_head(bundle: StudentBundle) -> dict[str, Tensor]:
    """Return what gives the exact probabilities: projection, and the text classifier at its calibrated scale."""
    head, projection = bundle.classifier.head, bundle.classifier.student.projection
    assert head is not None
    matrix = torch.from_numpy(head.matrix) * (head.logit_scale / bundle.card.temperature)
    return {"weight": projection.weight.detach().contiguous(), "bias": projection.bias.detach(), "classifier": matrix}


def cosine_probabilities(features: Tensor, head: Mapping[str, Tensor]) -> Tensor:
    """Return pooled features `[B, F]` to probabilities `[B, C]`, as the lines in the export's card do."""
    embeddings = functional.normalize(functional.linear(features, head["weight"], head["bias"]), dim=-1)
    return functional.linear(embeddings, head["classifier"]).softmax(dim=-1)


def _of_cosine_head(folder: Path, card: StudentCard, pixels: PixelSource) -> NDArray[np.float64]:
    model: Any = read_timm(folder / WEIGHTS_FILE, card)
    head = load_file(folder / HEAD_FILE)

    def probabilities(inputs: Tensor) -> Tensor:
        features = model.forward_head(model.forward_features(inputs), pre_logits=True)
        return cosine_probabilities(features, head)

    return _answers(probabilities, card, pixels).astype(np.float64)


def _answers(network: Any, card: StudentCard, pixels: PixelSource) -> NDArray[np.float32]:
    device = torch.device("cpu")

    def outputs(cut: slice) -> Tensor:
        answer: Tensor = network(student_input(pixels[cut], card.student.input, device))
        return answer

    joined: NDArray[np.float32] = torch.cat([*in_chunks(outputs, len(pixels), _CHUNK, device)]).numpy()
    return joined
