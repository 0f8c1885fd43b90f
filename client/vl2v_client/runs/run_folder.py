"""The run folder: one configuration, its metrics, checkpoints, student and report."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import CacheError, RunError
from vl2v_client.core.files import read_json, write_whole
from vl2v_client.data.pixel_file import PIXEL_BYTES, PixelFile
from vl2v_client.runs.config_record import (
    CONFIG_FORMAT,
    current_config,
    extension,
    removed_values,
    with_extension,
    without_extension,
)
from vl2v_client.runs.folder_lock import locked, writing
from vl2v_client.student.model.packaged import packaged_name
from vl2v_contract.identity import sha256_hex

CONFIG_FILE = "config.json"
CHOICE_FILE = "choice.json"  # which queries a selection chose, once it has
PURCHASE_FILE = "purchase.json"  # the name under which all that the run buys under its caps is counted
USED_FILE = "used.json"  # which embeddings the run trains on, once its purchase is done
LEFT_OUT_FILE = "left_out.json"  # which embeddings a sweep's purchase went on without
VECTORS_FILE = "purchase.safetensors"  # what is bought, for the runs of a sweep or the processes of a run
THREADS_FILE = "threads.json"  # with how many threads of PyTorch the runs of a sweep train on a CPU
FEATURES_FOLDER = ".features"  # what the runs of a sweep share of frozen students, while it is under way
IMAGES_FILE = "images.json"  # which images the run trained on, selected with and was judged by, once it is done
CHOICE_FORMAT = 2  # format 1 had several rounds
_RECORDS = (CONFIG_FILE, CHOICE_FILE, PURCHASE_FILE, USED_FILE, VECTORS_FILE, THREADS_FILE)
_DERIVED = frozenset({"stages", "erm_learning_rates"})
"""Settings that follow from others, and are long: no news beside them."""
_SHOWN = 5
_MAX_CONFIG_BYTES = 16 * 2**20
_MAX_RECORD_BYTES = 2**30  # size of the files that name each image or embedding of a run: a million take 200 MB
_BEFORE_TRAINING = frozenset({".lock", *_RECORDS, *(f"{name}.partial" for name in _RECORDS)})
_MADE_BY_TRAINING = frozenset({"methods", "answers", FEATURES_FOLDER})
_CHOSEN_BY_NAME = frozenset({"method", "baselines", "seed", "train_views", "extend"})
"""Options of training that no preset gives."""


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what it makes.

    Attributes:
        path: The folder.
        config: The resolved configuration, in this version's format.
        written: The configuration as `config.json` holds it, perhaps in the format of an earlier version.
        shared_answers: Folder of a local teacher's answers, if other runs share them.
    """

    path: Path
    config: Mapping[str, Any]
    written: Mapping[str, Any]
    shared_answers: Path | None = None

    @cached_property
    def pixels(self) -> PixelFile:
        """Disk space for the views that this process renders; its processes together keep to one bound."""
        return PixelFile(self.path, PIXEL_BYTES // int(os.environ.get("WORLD_SIZE", "1")))

    def view_size(self, student_size: int, teacher_size: int) -> int:
        """Return the size at which a student's views are rendered: its own, or the teacher's in earlier formats."""
        return student_size if self.written["format"] == CONFIG_FORMAT else teacher_size

    @property
    def settings_sha(self) -> str:
        """Names the configuration, for files that belong to it; further steps change nothing in them."""
        return sha256_hex(json.dumps(without_extension(self.written), sort_keys=True).encode())

    def method(self, name: str) -> Path:
        """Return metrics and checkpoints of one trained model."""
        return self.path / "methods" / name

    @property
    def answers(self) -> Path:
        """What a local teacher said of the training images."""
        return self.shared_answers or self.path / "answers"

    def recall(self, name: str) -> dict[str, Any] | None:
        """Return what `keep` wrote to the file of this name; None if it is not there, or of other settings.

        Raises:
            RunError: The file is damaged.
        """
        path = self.path / name
        if not path.exists():
            return None
        try:
            record: dict[str, Any] = read_json(path, _MAX_RECORD_BYTES)
            return record if record["of"] == self.settings_sha else None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise RunError(f"{path} is damaged: put back a copy of it, or choose another report.out") from error

    def keep(self, name: str, record: Mapping[str, Any]) -> None:
        """Write a file that belongs to these settings: whole and for good, or not at all.

        Raises:
            CacheError: It cannot be written.
        """
        write_whole(self.path / name, json.dumps({"format": 1, "of": self.settings_sha, **record}))


@contextmanager
def claim_run_folder(
    path: Path, config: Mapping[str, Any], *, shared_answers: Path | None = None
) -> Iterator[RunFolder]:
    """Make the folder, or go on in it if it holds a run of this configuration; one process at a time.

    The configuration may extend the run by further steps. A run of which nothing is trained gives way to another.

    Raises:
        RunError: The folder holds something else, a run with other settings, or one that is under way.
        CacheError: The folder cannot be written.
    """
    config = json.loads(json.dumps(config))  # as the file will give it back: lists for tuples
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        _find_run(path, config)  # so that no lock is left in a folder of something else
    with locked(path):
        with writing(path):
            folder = _find_run(path, config)
            if folder is None:
                folder = RunFolder(path, config, config)
                _write_config(folder)
            elif extension(folder.config) != extension(config):
                written = with_extension(folder.written, config)
                folder = RunFolder(path, current_config(written), written)
                _write_config(folder)
        yield replace(folder, shared_answers=shared_answers)


def _write_config(folder: RunFolder) -> None:
    write_whole(folder.path / CONFIG_FILE, json.dumps(folder.written, indent=2) + "\n")


def rejoin_run_folder(path: Path, config: Mapping[str, Any]) -> RunFolder:
    """Return a folder that holds the run or sweep of this configuration. Nothing is written or locked.

    Raises:
        RunError: It does not.
    """
    found = _find_run(path, json.loads(json.dumps(config))) if path.is_dir() else None
    if found is None:
        raise RunError(f"{path} holds nothing of these settings: buy first, with the same options")
    return found


def check_run_folder(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse a folder that a run could not use, before anything is planned or bought. Nothing is written.

    The configuration lacks what only a vendor and the images tell: the teacher, and images that are left out.

    Raises:
        RunError: The folder holds something else, a run with other settings, or one that is under way.
        CacheError: It cannot be written.
    """
    nearest = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise RunError(f"{nearest} is a file, no folder: choose another report.out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise CacheError(f"{nearest} cannot be written: change its permissions, or choose another report.out")
    if nearest != path:
        return
    _find_run(path, json.loads(json.dumps(config)), met=False)
    if (path / ".lock").exists():
        with locked(path):
            pass


def holds_run(path: Path, config: Mapping[str, Any]) -> bool:
    """Return whether the run of a configuration, as `check_run_folder` takes it, lies in a folder."""
    try:
        return _find_run(path, json.loads(json.dumps(config)), met=False) is not None
    except RunError:
        return False


def open_run_folder(path: Path) -> RunFolder:
    """Return a folder that `distill` made.

    Raises:
        RunError: It is none.
    """
    try:
        written = {**read_json(path / CONFIG_FILE, _MAX_CONFIG_BYTES)}
        return RunFolder(path, current_config(written), written)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RunError(f"{path} is not a run folder: give the folder of a `vl2v-client distill`") from error


def _find_run(path: Path, config: Mapping[str, Any], *, met: bool = True) -> RunFolder | None:
    """Return the run in a folder; None if there is none, or one of other settings of which nothing is trained.

    Such a run has made nothing that another could not make again: its purchase was declined, say, or its student could
    not be loaded. `met` is false for a configuration as `check_run_folder` takes it.

    Raises:
        RunError: The folder holds something else, another configuration, or values that this version removed.
    """
    others = {entry.name for entry in path.iterdir()} - _BEFORE_TRAINING
    if not (path / CONFIG_FILE).exists():
        if others:
            raise RunError(f"{path} is not empty and holds no run: choose another report.out")
        return None
    found = open_run_folder(path)
    if removed := removed_values(found.config):
        raise RunError(
            f"{path} holds a run with what version 0.2.0 removed ({', '.join(removed)}); nothing was changed: "
            "finish it with the version that began it, or choose another report.out"
        )
    old, new = found.config, current_config(config)
    if not met:
        old, new = map(_before_it_is_met, (old, new))
    steps = extension(old)
    if extension(new)[: len(steps)] == steps:
        old, new = without_extension(old), without_extension(new)
    elif not _differences(without_extension(old), without_extension(new)):
        named = " ".join(f"training.extend {count}" for count in steps)
        raise RunError(f"{path} holds a run that was extended by {sum(steps)} steps: add {named}, or further ones")
    changed = _differences(old, new)
    if changed and (others - _MADE_BY_TRAINING or has_trained(path)):
        told = [one for one in changed if one.partition(" ")[0] not in _DERIVED] or changed
        shown = "; ".join(told[:_SHOWN]) + (f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")
        raise RunError(f"{path} holds a run with other settings ({shown}): use those, or choose another report.out")
    return None if changed else found


def _before_it_is_met(config: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in config.items() if name != "teacher"}
    return {**known, "data": {name: value for name, value in known.get("data", {}).items() if name != "skipped"}}


def has_trained(path: Path) -> bool:
    """Return whether a run folder holds anything that took training: a checkpoint, or what follows from them."""
    return any(path.glob("methods/*/checkpoints/*.pt")) or (path / "student").exists()


def skipped_before(path: Path) -> tuple[str, ...] | None:
    """Return the images that the run in a folder leaves out; None if there is none that has bought or trained."""
    has_bought = (path / USED_FILE).exists() or (path / VECTORS_FILE).exists()
    is_under_way = has_bought or (path.is_dir() and any(one.is_dir() for one in path.iterdir()))
    if not is_under_way:
        return None
    try:
        return tuple(open_run_folder(path).config["data"].get("skipped", ()))
    except (RunError, KeyError, TypeError, AttributeError):  # what is wrong is said where the folder is claimed
        return None


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before!r}, is {after!r}")
    return found


def options_of_before(path: Path) -> dict[str, Any]:
    """Return what a run or sweep has in place of today's choice: a packaged student, an earlier preset's values."""
    try:
        folder = open_run_folder(path)
        training = folder.config["training"]
        before = {"student": name} if (name := packaged_name(folder.config["student"]["initial_weights"])) else {}
        if folder.written["format"] == CONFIG_FORMAT:
            return before
        kept = TrainingConfig.model_validate({name: training[name] for name in {*training} - _CHOSEN_BY_NAME})
        return {**before, **kept.named(), "view_recipe": folder.config["purchase"]["view_recipe"]}
    except (RunError, KeyError, TypeError, ValidationError):  # what is wrong is said where the folder is claimed
        return {}
