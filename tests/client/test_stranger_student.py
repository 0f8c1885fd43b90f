"""A student that a stranger hands over: whatever its files say, nothing is executed, fetched or left hanging."""

from __future__ import annotations

import copy
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save

from support.client.student_factories import SIZE, TINY_VIT, coloured_views, fresh_classifier
from vl2v_client.cli.app import run
from vl2v_client.core.errors import DataError
from vl2v_client.export.weights import export_bundle, load_bundle
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard
from vl2v_contract.identity import sha256_hex

SECONDS = 2.0
"""Of processor time for a refusal."""

TOWER = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "quick_gelu": False,
}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every way out of the process is closed, and one that was tried fails the test, whoever caught the error."""
    tried: list[str] = []

    def refuse(*words: object, **_: object) -> None:
        tried.append(repr(words))
        raise OSError("no test of this file may open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield tried
    assert tried == []


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    card = StudentCard(TINY_VIT, SIZE, ("red", "green", "blue"), "VL2V-ADiP", 0, logit_scale=20.0)
    export_bundle(folder, StudentBundle(fresh_classifier(), card), check_pixels=coloured_views(5, views=1).pixels[:, 0])
    return folder


class Stranger:
    """Hands over a copy of a good student, with changes."""

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        self.card: dict[str, Any] = json.loads((template / "student.json").read_text())
        self.weights = (template / "student.safetensors").read_bytes()
        self.tensors = load_file(template / "student.safetensors")

    def set(self, entry: str, value: Any) -> None:
        *parents, name = entry.split(".")
        reduce(lambda part, parent: part[parent], parents, self.card)[name] = value

    def hand_over(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "student.safetensors").write_bytes(self.weights)
        self.card["weights_sha256"] = sha256_hex(self.weights)
        (self.folder / "student.json").write_text(json.dumps(self.card))
        return self.folder


@pytest.fixture
def stranger(tmp_path: Path, template: Path) -> Stranger:
    return Stranger(tmp_path / "student", template)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image.png"
    Image.fromarray(np.full((40, 40, 3), 200, dtype=np.uint8)).save(path)
    return path


def refusal(folder: Path, image: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `predict` says of a student that it refuses, with exit code 3, soon, and in clean words."""
    begin = time.process_time()
    code = run(["predict", str(folder), str(image)])
    spent = time.process_time() - begin
    shown = capsys.readouterr()
    assert code == DataError.exit_code, shown.err
    assert shown.out == ""
    assert spent < SECONDS
    assert not {letter for letter in shown.err if not letter.isprintable()} - {"\n"}
    return " ".join(shown.err.split())


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def test_the_good_student_is_used(stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["predict", str(stranger.hand_over()), str(image)]) == 0
    assert capsys.readouterr().out.startswith("path,class,probability,error\n")


def test_a_pickle_is_not_opened(
    stranger: Stranger, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Bomb(tmp_path / "executed"), tmp_path / "bomb.pt")
    stranger.set("student.arguments.checkpoint_path", str(tmp_path / "bomb.pt"))
    assert "student.arguments.checkpoint_path" in refusal(stranger.hand_over(), image, capsys)
    assert not (tmp_path / "executed").exists()


ARGUMENTS: list[tuple[str, Any]] = [
    ("pretrained", True),
    ("pretrained", "true"),
    ("pretrained_cfg", {"url": "http://192.0.2.1/weights.pth"}),
    ("pretrained_cfg", {"file": "weights.pt"}),
    ("pretrained_cfg", {"hf_hub_id": "someone/model"}),
    ("pretrained_cfg_overlay", {"url": "http://192.0.2.1/weights.pth"}),
    ("cache_dir", "folder"),
    ("scriptable", True),
    ("block_fn", "builtins.eval"),
    ("depth", 1_000_000_000),
    ("depth", -1),
    ("depth", 0),
    ("depth", "12"),
    ("depth", True),
    ("depth", [2, 2]),
    ("depth", {"depth": {"depth": 1}}),
    ("depth", None),
    ("depth", 1.5),
    ("embed_dim", 10**12),
    ("embed_dim", -32),
    ("num_heads", 10**9),
    ("patch_size", 0),
    ("img_size", 1_000_000_000),
    ("img_size", [32, 32]),
    ("mlp_ratio", float("nan")),
    ("mlp_ratio", float("inf")),
    ("mlp_ratio", 1e30),
    ("\x1b[2Jname", 1),
]

ENTRIES: list[tuple[str, Any]] = [
    *((f"student.arguments.{name}", value) for name, value in ARGUMENTS),
    ("student.arguments", []),
    ("student.arguments", "depth"),
    ("student.architecture", "hf-hub:someone/model"),
    ("student.architecture", "hf_hub:someone/model"),
    ("student.architecture", "local-dir:/etc"),
    ("student.architecture", "someone/model"),
    ("student.architecture", "../vit_tiny_patch16_224"),
    ("student.architecture", "http://192.0.2.1/model"),
    ("student.architecture", "vit_tiny_patch16_224.augreg_in21k"),
    ("student.architecture", "no_such_model"),
    ("student.architecture", "vit_tiny_patch16_224\x1b[31m"),
    ("student.architecture", 7),
    ("student.features", 10**11),
    ("student.features", -1),
    ("student.input.size", 1_000_000_000),
    ("student.input.size", 0),
    ("student.input.size", "32"),
    ("student.input.mean", [0.5, 0.5]),
    ("student.input.mean", [float("nan")] * 3),
    ("student.input.mean", ["0.5"] * 3),
    ("student.input.std", [0.5, 0.5, 0.0]),
    ("student.input.std", [0.5, 0.5, -1.0]),
    ("student.input.std", [0.5, 0.5, float("inf")]),
    ("student.input.interpolation", "sinc"),
    ("student.input.interpolation", ["bicubic"]),
    ("student.input", None),
    ("student", 3),
    ("view_size", 1_000_000_000),
    ("view_size", 0),
    ("class_names", []),
    ("class_names", "red"),
    ("class_names", [1, 2, 3]),
    ("class_names", ["red", "red", "blue"]),
    ("class_names", ["red", "green", ""]),
    ("class_names", ["red", "green", "b" * 100_000]),
    ("class_names", [str(number) for number in range(300_000)]),
    *(
        ("class_names", ["red", "green", f"bl{letter}ue"])
        for letter in ("\x1b", "\r", "\n", "\x07", "\0", "\x9b", "\u202e", "\u2066", "\u2028")
    ),
    ("temperature", 0),
    ("temperature", -1.0),
    ("temperature", float("nan")),
    ("temperature", 1e300),
    ("logit_scale", float("inf")),
    ("logit_scale", float("nan")),
    ("logit_scale", 0),
    ("logit_scale", "20"),
    ("logit_bias", float("-inf")),
    ("seed", "0"),
    ("method", None),
    ("method", {}),
    ("prompt_templates", [None]),
    ("teacher", ["id"]),
    ("queries", {"images": -1}),
    ("scores", {"target": float("nan")}),
    ("target_domain", 3),
    ("surprise", 1),
]


@pytest.mark.parametrize(("entry", "value"), ENTRIES, ids=lambda value: repr(value)[:60])
def test_an_entry_that_no_card_has_is_named(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], entry: str, value: Any
) -> None:
    stranger.set(entry, value)
    told = refusal(stranger.hand_over(), image, capsys)
    assert f"`{entry}".replace("\x1b", r"\x1b") in told
    assert "export the student again" in told


@pytest.mark.parametrize(
    "entry", ["student", "student.architecture", "student.input", "student.input.std", "class_names", "view_size"]
)
def test_a_missing_entry_is_named(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], entry: str
) -> None:
    *parents, name = entry.split(".")
    del reduce(lambda part, parent: part[parent], parents, stranger.card)[name]
    assert f"`{entry}`" in refusal(stranger.hand_over(), image, capsys)


NO_CARDS = {
    "nested": "[" * 100_000,
    "million classes": json.dumps({"format": 1, "class_names": [str(number) for number in range(1_000_000)]}),
    "many entries": json.dumps({"format": 1, **{str(number): 0 for number in range(200_000)}}),
    "long number": '{"format": ' + "1" * 100_000 + "}",
    "no UTF-8": "\ud800",
    "no JSON": "nul",
    "empty": "",
    "large": '{"format": 1, "a": "' + "a" * 10**7,
    "number": "1",
}


@pytest.mark.parametrize("text", NO_CARDS.values(), ids=NO_CARDS)
def test_a_file_that_is_no_card_is_refused(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    folder = stranger.hand_over()
    (folder / "student.json").write_bytes(text.encode(errors="surrogatepass"))
    assert "student" in refusal(folder, image, capsys)


@pytest.mark.parametrize("name", ["student.json", "student.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_not_read(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str
) -> None:
    path = stranger.hand_over() / name
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    refusal(path.parent, image, capsys)


def test_arguments_that_timm_s_model_does_not_take_are_refused(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger.set("student.architecture", "resnet18")
    assert "no 'resnet18' that can be built by `student.arguments`" in refusal(stranger.hand_over(), image, capsys)


def test_a_model_that_would_take_minutes_a_picture_is_refused(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger.set("student.arguments", {"img_size": 1024, "patch_size": 1, "embed_dim": 8, "depth": 1, "num_heads": 1})
    stranger.set("student.input.size", 1024)
    stranger.set("student.features", 8)
    backbone = timm.create_model("vit_tiny_patch16_224", num_classes=0, **stranger.card["student"]["arguments"])
    weights = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    head = {"projection.weight": torch.zeros(16, 8), "projection.bias": torch.zeros(16)}
    stranger.weights = save({**weights, **head, "classifier": torch.ones(3, 16)})
    told = refusal(stranger.hand_over(), image, capsys)
    assert "`student.input.size` 1024" in told
    assert "3.5e+13 operations" in told


def test_a_model_that_computes_large_tables_is_refused(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def of_tables(*_: object, **__: object) -> torch.nn.Module:
        model = torch.nn.Linear(1, 1)
        model.register_buffer("table", torch.empty(2**29, dtype=torch.float32), persistent=False)
        return model

    monkeypatch.setattr(timm, "create_model", of_tables)
    assert "2,147,483,648 bytes of tables" in refusal(stranger.hand_over(), image, capsys)


# Weights that are not the card's.


def raw_safetensors(header: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def wider(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.blocks.0.attn.qkv.weight"] = torch.zeros(97, 32)


def bytes_for_floats(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.blocks.0.attn.qkv.weight"] = torch.zeros(96, 32, dtype=torch.uint8)


def missing(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["backbone.norm.weight"]


def superfluous(tensors: dict[str, torch.Tensor]) -> None:
    tensors["backbone.\x1b[2Jmore"] = torch.zeros(1)


def more_classes(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier"] = torch.zeros(4, 16)


def no_matrix(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier"] = torch.zeros(3)


def empty_but_wide(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier"] = torch.zeros(0, 25_000_000_000)


def wide_without_rows(tensors: dict[str, torch.Tensor]) -> None:
    tensors["classifier"] = torch.zeros(3, 0)


@pytest.mark.parametrize(
    "change",
    [
        wider,
        bytes_for_floats,
        missing,
        superfluous,
        more_classes,
        no_matrix,
        empty_but_wide,
        wide_without_rows,
    ],
)
def test_weights_of_another_model_are_refused_before_they_are_loaded(
    stranger: Stranger,
    image: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[dict[str, torch.Tensor]], None],
) -> None:
    change(stranger.tensors)
    stranger.weights = save(stranger.tensors)
    folder = stranger.hand_over()
    monkeypatch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: pytest.fail("the weights were loaded"))
    assert "does not fit its card" in refusal(folder, image, capsys)


@pytest.mark.parametrize(
    ("card", "width"),
    [({"student.features": 65_536}, 65_536), ({"student.arguments.embed_dim": 8_192, "student.features": 8_192}, 8192)],
)
def test_a_model_larger_than_its_file_takes_no_memory(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], card: dict[str, int], width: int
) -> None:
    for entry, value in card.items():
        stranger.set(entry, value)
    assert "does not fit its card" in refusal(stranger.hand_over(), image, capsys)


@pytest.mark.parametrize(
    "data",
    [
        raw_safetensors(
            {"projection.weight": {"dtype": "F32", "shape": [25_000_000_000, 1], "data_offsets": [0, 10**11]}}
        ),
        struct.pack("<Q", 2**62) + b"{}",
        raw_safetensors({"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 4]}}, b"\0" * 4),
        b"PK\x03\x04" + b"\0" * 100,
        b"\x80\x04" + b"." * 100,
        b"",
    ],
    ids=["100 GB", "endless header", "overflow", "zip", "pickle", "empty"],
)
def test_a_file_that_is_no_safetensors_is_refused(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], data: bytes
) -> None:
    stranger.weights = data
    assert "does not fit its card" in refusal(stranger.hand_over(), image, capsys)


def test_a_file_larger_than_any_student_is_not_read(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stranger.hand_over()
    os.truncate(folder / "student.safetensors", 9 * 1024**3)  # sparse: no disk is taken
    assert "larger than" in refusal(folder, image, capsys)


def test_a_student_that_answers_nonsense_is_refused(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger.tensors["projection.bias"][:] = float("nan")
    stranger.weights = save(stranger.tensors)
    begin = run(["predict", str(stranger.hand_over()), str(image)])
    told = capsys.readouterr().err
    assert begin == DataError.exit_code
    assert "image.png" in told
    assert "not finite" in told


# open_clip's image towers.

TOWERS: list[tuple[str, Any]] = [
    ("text_cfg", {"hf_model_name": "someone/model"}),
    ("text_cfg", {"hf_tokenizer_name": "someone/model"}),
    ("vision_cfg.hf_model_name", "someone/model"),
    ("vision_cfg.timm_model_name", "hf-hub:someone/model"),
    ("vision_cfg.timm_model_name", "local-dir:/etc"),
    ("vision_cfg.timm_model_pretrained", True),
    ("vision_cfg.checkpoint_path", "bomb.pt"),
    ("pretrained", "openai"),
    ("pretrained_image_path", "bomb.pt"),
    ("multimodal_cfg", {}),
    ("init_logit_scale", 1.0),
    ("embed_dim", 10**11),
    ("embed_dim", "16"),
    ("vision_cfg.layers", 10**9),
    ("vision_cfg.layers", [10**9] * 4),
    ("vision_cfg.width", 10**9),
    ("vision_cfg.image_size", 10**9),
    ("vision_cfg.image_size", [10**9, 1]),
    ("vision_cfg.patch_size", 0),
    ("vision_cfg.head_width", 0),
    ("vision_cfg.mlp_ratio", float("nan")),
    ("vision_cfg.patch_dropout", 2.0),
    ("vision_cfg.act_kwargs", {"inplace": True}),
    ("vision_cfg.norm_kwargs", {"normalized_shape": 10**9}),
    ("vision_cfg.pool_type", {}),
    ("vision_cfg", None),
    ("quick_gelu", "yes"),
]


@pytest.mark.parametrize(("entry", "value"), TOWERS, ids=lambda value: repr(value)[:60])
def test_a_tower_is_as_strict(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], entry: str, value: Any
) -> None:
    stranger.set("student.arguments", {})
    stranger.set("student.open_clip", copy.deepcopy(TOWER))
    stranger.set(f"student.open_clip.{entry}", value)
    assert f"`student.open_clip.{entry}" in refusal(stranger.hand_over(), image, capsys)


@pytest.mark.parametrize(
    ("vision", "complaint"),
    [
        (TOWER["vision_cfg"], "does not fit its card"),
        ({"timm_model_name": "resnet18", "timm_proj": "mlp"}, "by `student.open_clip`"),
        ({"width": 33, "head_width": 2}, "by `student.open_clip`"),
    ],
)
def test_a_tower_that_is_not_the_file_s_is_refused(
    stranger: Stranger, image: Path, capsys: pytest.CaptureFixture[str], vision: dict[str, Any], complaint: str
) -> None:
    stranger.set("student.arguments", {})
    stranger.set("student.open_clip", {**TOWER, "vision_cfg": vision})
    assert complaint in refusal(stranger.hand_over(), image, capsys)


# What was written before stays readable.


def test_a_card_of_before_is_read(stranger: Stranger) -> None:
    stranger.card = {
        "format": 1,
        "student": {
            "architecture": "vit_tiny_patch16_224",
            "arguments": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2},
            "features": 32,
            "input": {"size": 32, "mean": [0, 0.5, 0.5], "std": [1, 0.5, 0.5], "interpolation": "bilinear"},
            "initial_weights": None,
        },
        "view_size": 64,
        "class_names": ["chien", "می\u200cشود", "犬\u3000猫"],
        "method": "VL2V-ADiP",
        "seed": 2**70,
        "prompt_templates": ["a photo of a {class}"],
        "logit_scale": 100,
        "logit_bias": 0,
        "temperature": 0.01,
        "teacher": {"id": "ViT-B-16/openai", "weights_sha": "ab", "ledger_id": "local"},
        "queries": {},
        "scores": {"source_validation": 1},
        "target_domain": None,
    }
    bundle = load_bundle(stranger.hand_over())
    assert bundle.card.student.input.mean == (0.0, 0.5, 0.5)
    assert bundle.card.class_names == ("chien", "می\u200cشود", "犬\u3000猫")
    assert np.isfinite(bundle.classifier.logits(coloured_views(2, views=1).pixels[:, 0])).all()
