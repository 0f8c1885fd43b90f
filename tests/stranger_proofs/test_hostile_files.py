"""The client against a stranger's data set or student: nothing hangs, is executed, or takes memory without end."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from support.adversary.hostile_images import progressive_bomb
from support.client.student_factories import SIZE, TINY_VIT, coloured_views, fresh_classifier
from support.proofs.measured_process import Ended, run_measured_forked
from support.proofs.proof_figures import Prove
from support.vendor.live_parties import Client, Vendor, free_port
from support.vendor.serving_shop import png_bomb
from vl2v_client.data.shapes import write_shapes
from vl2v_client.export.weights import export_bundle
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard

MEBIBYTE = 1024 * 1024
MOST_SECONDS = 120.0
MOST_MEBIBYTES = 256
"""Beyond what the same command takes of an honest folder."""


class Bomb:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.path), "w")


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def _loop(path: Path) -> None:
    path.with_suffix("").symlink_to(path.parent, target_is_directory=True)
    path.write_bytes(b"no picture")


PICTURES: dict[str, Callable[[Path], object]] = {
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a pipe": lambda path: os.mkfifo(path),
    "a file of a tebibyte": _sparse,
    "169 megapixels": lambda path: path.write_bytes(png_bomb(13_000, 13_000)),
    "5,000 scans": lambda path: path.write_bytes(progressive_bomb(5_000, (1000, 1000))[:-1]),
    "a link to itself": lambda path: path.symlink_to(path),
    "a folder that holds itself": _loop,
    "an empty file": lambda path: path.write_bytes(b""),
}
"""What stands in the place of a picture of the data set."""


def _entry(*names: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        card = json.loads((folder / "student.json").read_text())
        part: Any = card
        for name in names[:-1]:
            part = part[name]
        part[names[-1]] = value
        (folder / "student.json").write_text(json.dumps(card))

    return change


def _pickled(folder: Path) -> None:
    torch.save(Bomb(folder / "executed"), folder / "student.safetensors")


def _in_place_of(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)

    return change


STUDENTS: dict[str, Callable[[Path], object]] = {
    "a pickle for weights": _pickled,
    "a checkpoint to load": _entry("student", "arguments", "checkpoint_path", value="student.safetensors"),
    "weights to fetch": _entry("student", "arguments", "pretrained", value=True),
    "an address for an architecture": _entry("student", "architecture", value="hf-hub:someone/model"),
    "depth 1e9": _entry("student", "arguments", "depth", value=10**9),
    "images of 1e9 pixels a side": _entry("student", "input", "size", value=10**9),
    "a name that steers": _entry("class_names", value=["red", "green", "\x1b[2Jblue"]),
    "weights that are a pipe": _in_place_of("student.safetensors", os.mkfifo),
    "weights that are /dev/zero": _in_place_of("student.safetensors", lambda path: path.symlink_to("/dev/zero")),
    "weights of a tebibyte": _in_place_of("student.safetensors", _sparse),
    "a card that is /dev/zero": _in_place_of("student.json", lambda path: path.symlink_to("/dev/zero")),
    "a card that is deep": lambda folder: (folder / "student.json").write_text("[" * 3_000_000),
}
"""What is changed of a good student."""


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    vendor = Vendor(tmp_path_factory.mktemp("vendor") / "home", free_port())
    vendor.start()
    yield vendor
    vendor.stop()


class Reader:
    """Runs one command on copies of a good folder, each with one thing changed."""

    def __init__(self, client: Client, good: Path, words: Callable[[Path], list[str | Path]]) -> None:
        self._client, self.good, self._words = client, good, words
        self.honest = self.run(lambda _folder: None, "honest")
        assert self.honest.code == 0, self.honest.err

    def run(self, change: Callable[[Path], object], name: str) -> Ended:
        folder = self.good.parent / name.replace(" ", "-").replace("/", "-")
        shutil.copytree(self.good, folder)
        change(folder)
        words, environment = self._words(folder), self._client.environment
        terms: dict[str, Any] = {"within_seconds": MOST_SECONDS, "cwd": self.good.parent}
        return run_measured_forked("vl2v-client", words, environment, **terms)

    def hold(self, prove: Prove, name: str, change: Callable[[Path], object], *, named: str) -> None:
        ended = self.run(change, name)
        said = "".join(ended.err.split())
        steers = {letter for letter in ended.err + ended.out if not letter.isprintable()} - {"\n"}
        is_told = ended.code > 0 and named in said and "Traceback" not in said and not steers
        told = f"exit code {ended.code}" + ("" if is_told else f", {ended.err[-300:]!r}")
        prove(f"{name}: told", told, goal=f"an error that names {named}", met=is_told)
        seconds = round(ended.seconds, 1)
        prove(f"{name}: seconds", seconds, goal=f"< {MOST_SECONDS:g}", met=seconds < MOST_SECONDS)
        peak, most = (size // MEBIBYTE for size in (ended.peak_bytes, self.honest.peak_bytes))
        goal = most + MOST_MEBIBYTES
        prove(f"{name}: memory, MiB", peak, goal=f"<= {goal}", met=peak <= goal)


@pytest.fixture(scope="module")
def data_reader(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("data")
    styles, names = ("photo", "cartoon", "sketch"), ("house", "fish")
    write_shapes(folder / "good", seed=7, styles=styles, images_per_class=3, class_names=names, size=32)
    client = Client(vendor, folder / "client.db", vendor.create_key("reader", 1000))
    words: list[str | Path] = ["--student", "tiny", "--target-domain", "sketch", "--views", "1"]
    return Reader(client, folder / "good", lambda data: ["plan", "--data", data, *words])


@pytest.fixture(scope="module")
def student_reader(vendor: Vendor, tmp_path_factory: pytest.TempPathFactory) -> Reader:
    folder = tmp_path_factory.mktemp("students")
    card = StudentCard(TINY_VIT, SIZE, ("red", "green", "blue"), "VL2V-ADiP", 0, logit_scale=20.0)
    pixels = coloured_views(5, views=1).pixels[:, 0]
    export_bundle(folder / "good", StudentBundle(fresh_classifier(), card), check_pixels=pixels)
    Image.new("RGB", (40, 40), "red").save(folder / "picture.png")
    client = Client(vendor, folder / "client.db", "vl2v_none")
    return Reader(client, folder / "good", lambda student: ["predict", student, folder / "picture.png"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("picture", PICTURES)
def test_a_data_set_of_a_stranger_costs_bounded_time_and_memory(
    picture: str, data_reader: Reader, prove: Prove
) -> None:
    def change(data: Path) -> None:
        for place in sorted((data / "photo" / "fish").iterdir()):  # all, so that the hold-out cannot hide it
            place.unlink()
            PICTURES[picture](place)

    data_reader.hold(prove, picture, change, named="photo/fish/")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("student", STUDENTS)
def test_a_student_of_a_stranger_costs_bounded_time_and_memory(
    student: str, student_reader: Reader, prove: Prove
) -> None:
    student_reader.hold(prove, student, STUDENTS[student], named="student")
    assert not list(student_reader.good.parent.rglob("executed"))
