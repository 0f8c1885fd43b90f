"""The student in what `export` wrote for timm or the Hugging Face Hub.

The folder may be a stranger's. Its configuration is read as the entries of a card, and its tensors are compared with
the model of that card before memory is taken for them. The probabilities are the student's own; those of a text
classifier come from its exact head.
"""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from vl2v_client.core.files import open_regular, read_json
from vl2v_client.export.timm_format import CONFIG_ENTRY, CONFIG_FILE, HEAD_FILE, TAG, WEIGHTS_FILE, classifier_of
from vl2v_client.export.weights import CLASSIFIER_KEY, MAX_WEIGHTS_BYTES, check_tensors, read_header, refused
from vl2v_client.student.model.classifier import StudentBundle, StudentClassifier, TextHead
from vl2v_client.student.model.network import empty_student
from vl2v_client.student.model.spec import MAX_CARD_BYTES, StudentCard

_OF_HEAD = {"weight": "projection.weight", "bias": "projection.bias", "classifier": CLASSIFIER_KEY}


def load_timm(folder: Path, *, device: torch.device | str = "cpu") -> StudentBundle:
    """Read a student that was exported as `timm` or `hf`.

    Raises:
        DataError: A file is missing, damaged or too large, has what no export has, or does not fit the others.
    """
    files = [folder / WEIGHTS_FILE, *([folder / HEAD_FILE] if (folder / HEAD_FILE).exists() else [])]
    with refused(f"{folder} is no export of a student"):
        for file in files:
            open_regular(file, MAX_WEIGHTS_BYTES).close()
        headers = [read_header(file) for file in files]
        card = _card(_config(folder), has_texts=len(files) > 1)
    names = [_own_names(list(headers[0]), card, keep_classifier=len(files) == 1)]
    names += [{name: _OF_HEAD.get(name, name) for name in header} for header in headers[1:]]
    stored = {of_file[name]: header[name] for of_file, header in zip(names, headers, strict=True) for name in of_file}
    outputs = check_tensors(files[0], stored, card)
    tensors: dict[str, Tensor] = {}
    for file, of_file in zip(files, names, strict=True):
        tensors |= {of_file[name]: value for name, value in load_file(file).items() if name in of_file}
    matrix = tensors.pop(CLASSIFIER_KEY, None)
    student = empty_student(card.student, outputs=outputs)
    student.load_state_dict(tensors)
    head = None if matrix is None else TextHead(matrix.numpy(), logit_scale=1.0)  # its rows are of that length
    return StudentBundle(StudentClassifier(student.to(device).eval(), card.student.input, head), card)


def _config(folder: Path) -> Any:
    """Return the configuration: the file beside the weights, or where there is none, the copy within them."""
    if (folder / CONFIG_FILE).exists():
        return read_json(folder / CONFIG_FILE, MAX_CARD_BYTES)
    with safe_open(str(folder / WEIGHTS_FILE), framework="pt") as file:
        text = (file.metadata() or {}).get(CONFIG_ENTRY)
    if text is None:
        raise ValueError(f"neither {CONFIG_FILE} nor {WEIGHTS_FILE} says what the weights are")
    return json.loads(text)


def _card(config: Any, *, has_texts: bool) -> StudentCard:
    """Return the card of what `hub_config` made; calibration is within the weights."""
    try:
        shown = config["pretrained_cfg"]
        if shown["tag"] != TAG:
            raise ValueError(f"its configuration is not one of vl2v: its tag is {shown['tag']!r}")
        size = shown["input_size"][-1]
        wanted = {"size": size, "mean": shown["mean"], "std": shown["std"], "interpolation": "bicubic"}
        record = {
            "format": 1,
            "student": {
                "architecture": config["architecture"],
                "arguments": config.get("model_args", {}),
                "features": config["num_features"],
                "input": wanted,
            },
            "view_size": size,
            "class_names": config["label_names"],
            "method": "",
            "seed": 0,
            "logit_scale": 1.0 if has_texts else None,
        }
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"its configuration is not one of vl2v: {error}") from error
    return StudentCard.from_json(json.dumps(record).encode())


def _own_names(stored: list[str], card: StudentCard, *, keep_classifier: bool) -> dict[str, str]:
    """Return the student's own name of each of timm's tensors; timm's classifier gives way to the exact head."""
    with refused(f"the student's configuration describes no {card.student.architecture!r}"), torch.device("meta"):
        model = timm.create_model(
            card.student.architecture, num_classes=len(card.class_names), **card.student.arguments
        )
    prefix = f"{classifier_of(model, card)[0]}."
    names = {name: f"backbone.{name}" for name in stored if not name.startswith(prefix)}
    if keep_classifier:
        names |= {name: f"projection.{name.removeprefix(prefix)}" for name in stored if name.startswith(prefix)}
    return names
