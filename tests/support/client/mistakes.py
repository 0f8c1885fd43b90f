"""What people get wrong before a command of theirs is right: each mistake with what must become of it, as data.

In words, `{home}` is the folder of a row, `{data}` its data set, `{out}` a folder for results and `{url}` the vendor.
"""

from __future__ import annotations

import fcntl
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx

from support.client.fake_vendor import FakeVendor
from support.client.student_factories import SIZE, TINY_VIT, coloured_views, fresh_classifier
from vl2v_client.export.weights import export_bundle
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard

KEY = "VL2V_API_KEY"
BUY = "buy --data {data} --views 1 --yes"
PLAN = "plan --data {data} --views 1"
DISTILL = "distill --data {data} --views 1 --out {out} --yes --device cpu --student tiny"


def nothing(_place: Any) -> None:
    """Prepare nothing."""


class Failure(StrEnum):
    """Failures that were met by somebody new to the program; each is a row of the table, or a test of its own."""

    LATE_STUDENT = "a student that cannot be loaded is found after the purchase"
    BLOCKED_FOLDER = "a failed run blocks its folder"
    TOO_HIGH = "one folder too high buys `a photo of a art_painting`"
    PARTS = "train and val are taken for domains"
    ONE_CLASS = "a single class reports 100 %"
    MADE_CACHE = "`cache verify` of a missing file creates it and calls it sound"
    HEIC = "HEIC files are skipped in silence"
    ONE_BY_ONE = "corrupt files are named one per run"
    FIRST_BAD_FILE = "`predict` ends at the first bad file"
    NO_EXTRA = "a traceback where the packages of an extra are missing"
    WRONG_INDEX = "a hint installs vl2v itself, from an index where it is not"
    INTERRUPT = "Ctrl-C ends with a traceback, or another code than 130"
    NOBODY_TO_ASK = "without terminal and --yes, a bare `Aborted`"
    TLS = "https against a vendor of plain HTTP"
    V1 = "a vendor URL that ends in /v1"
    NO_GPU = "`cuda` is recommended where there is none"
    TYPO = "a typo in the settings file, without file or suggestion"
    NO_CHECKPOINT = "`no checkpoint at None`"
    LATE_SCOPE = "a key without the scope is found after the approval"
    CUT_NAMES = "another model is named by two texts that are cut to the same one"
    SILENT_FETCH = "a silent wait for a download"
    BROKEN_WORDS = "words broken in the middle"
    FOLDED_TABLES = "tables folded at 80 columns"


@dataclass(frozen=True)
class Mistake:
    """A row of the table.

    Attributes:
        name: What went wrong, in a few words.
        words: The command line.
        code: Its exit code.
        says: The cause and the next step, as parts of what is printed.
        prepare: Gets the row's folder, which holds `data`, before the command.
        vendor: Gets the vendor.
        environment: Variables beside those that name vendor, key and cache; `None` unsets one.
        typed: What the user types when asked.
        leaves: Files that the command leaves beside the cache.
        cacheless: Whether the command may not even make a cache.
        failure: Which of the failures that were met it is, if one of them.
        earlier: A command before it, which goes wrong as well, with the same words typed.
        never: What may not be printed.
        alone: Whether it runs as a process of its own, which finds modules in the row's folder first.
    """

    name: str
    words: str
    code: int
    says: tuple[str, ...]
    prepare: Callable[[Path], object] = nothing
    vendor: Callable[[FakeVendor], object] = nothing
    environment: Mapping[str, str | None] = field(default_factory=dict)
    typed: str = ""
    leaves: frozenset[str] = frozenset()
    cacheless: bool = False
    failure: Failure | None = None
    earlier: str = ""
    never: tuple[str, ...] = ()
    alone: bool = False


def moved(old: str, new: str) -> Callable[[Path], None]:
    """Move a file or folder of the data set."""

    def prepare(home: Path) -> None:
        target = home / "data" / new
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(home / "data" / old, target)

    return prepare


def removed(*names: str) -> Callable[[Path], None]:
    """Remove folders of the data set."""

    def prepare(home: Path) -> None:
        for name in names:
            shutil.rmtree(home / "data" / name)

    return prepare


def emptied(name: str) -> Callable[[Path], None]:
    """Remove the files of a folder of the data set."""

    def prepare(home: Path) -> None:
        for path in (home / "data" / name).iterdir():
            path.unlink()

    return prepare


def written(name: str, content: bytes | str) -> Callable[[Path], None]:
    """Write a file below the row's folder."""

    def prepare(home: Path) -> None:
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def all_of(*steps: Callable[[Path], object]) -> Callable[[Path], None]:
    """Prepare several things, one after the other."""

    def prepare(home: Path) -> None:
        for step in steps:
            step(home)

    return prepare


def renamed_parts(home: Path) -> None:
    """Call the domains `train` and `val`."""
    (home / "data" / "photo").rename(home / "data" / "train")
    (home / "data" / "sketch").rename(home / "data" / "val")


def flat_parts(home: Path) -> None:
    """Lay images directly into `train` and `test`."""
    for domain, part in (("photo", "train"), ("sketch", "test")):
        (home / "data" / domain / "cat").rename(home / "data" / part)
        shutil.rmtree(home / "data" / domain)


def one_too_high(home: Path) -> None:
    """Put the data set one folder further down."""
    (home / "data").rename(home / "pacs")
    (home / "data").mkdir()
    (home / "pacs").rename(home / "data" / "pacs")


def spoilt(*names: str, content: bytes = b"no image") -> Callable[[Path], None]:
    """Write something else over images."""
    return all_of(*(written(f"data/{name}", content) for name in names))


def spoilt_class(home: Path) -> None:
    """Write something else over every image of a class, so that hold-out and training part have one."""
    for path in (home / "data" / "photo" / "cat").iterdir():
        path.write_bytes(b"no image")


def heic_class(home: Path) -> None:
    """Give every image of a class a suffix that is not read."""
    for path in (home / "data" / "photo" / "cat").iterdir():
        path.rename(path.with_suffix(".HEIC"))


def dangling(home: Path) -> None:
    """Put a link to nothing in the place of each image of a class."""
    for path in (home / "data" / "photo" / "cat").iterdir():
        path.unlink()
        path.symlink_to("gone.png")


def locked_run(home: Path) -> Any:
    """Be another process at work in the run's folder; returns the lock, which ends with it."""
    (home / "out").mkdir()
    lock = (home / "out" / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return lock


def trained_run(home: Path) -> None:
    """Be a run of other settings that has trained."""
    written("out/config.json", json.dumps({"format": 3, "training": {}, "data": {}, "stages": []}))(home)
    written("out/methods/vl2v-adip/checkpoints/align.pt", b"")(home)


def other_drawing(home: Path) -> None:
    """Be a `shapes` data set of another seed."""
    written("out/shapes.json", json.dumps({"format": 1, "seed": 5, "size": 16, "shortcut": "none"}))(home)


def refuse(status: int, code: str, *paths: str) -> Callable[[FakeVendor], None]:
    """Make the vendor refuse requests to these paths."""

    def prepare(vendor: FakeVendor) -> None:
        def before(request: httpx.Request) -> httpx.Response | None:
            is_meant = any(path in request.url.path for path in paths)
            return vendor.problem(status, code, "the API key lacks the scope `embed`") if is_meant else None

        vendor.before = before

    return prepare


def foreign(vendor: FakeVendor) -> None:
    """Be a web server of another kind."""
    vendor.before = lambda _request: httpx.Response(404, text="<html>not here</html>")


def poor(vendor: FakeVendor) -> None:
    """Leave the account three queries."""
    vendor.post("topup", 3 - vendor.limit_units, [])


def cut(name: str) -> Callable[[Path], None]:
    """Cut the second half of an image off."""

    def prepare(home: Path) -> None:
        path = home / "data" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return prepare


def full_disk(_home: Path) -> Any:
    """Leave no room on any disk, for as long as what is returned is held."""
    return patch.object(shutil, "disk_usage", lambda _path: SimpleNamespace(free=0))


def teacher_without_weights(home: Path) -> Any:
    """Describe a local teacher in a file, where open_clip is installed, for as long as what is returned is held."""
    config = {"embed_dim": 16, "vision_cfg": {}, "text_cfg": {}}
    written("teacher.json", json.dumps(config))(home)
    return patch.dict(sys.modules, {"open_clip": ModuleType("open_clip")})


def heic_beside(home: Path) -> None:
    """Lay a picture of a phone beside the others."""
    written("data/photo/cat/phone.HEIC", b"ftypheic")(home)


def student(home: Path) -> None:
    """Be a student that somebody has exported."""
    card = StudentCard(TINY_VIT, SIZE, ("cat", "cow", "dog"), "VL2V-ADiP", 0, logit_scale=20.0)
    views = coloured_views(5, views=1).pixels[:, 0]
    export_bundle(home / "student", StudentBundle(fresh_classifier(), card), check_pixels=views)


def without_onnx(home: Path) -> Any:
    """Be an exported student where a package of the extra is missing, for as long as what is returned is held."""
    student(home)
    return patch.dict(sys.modules, {"onnx": None})
