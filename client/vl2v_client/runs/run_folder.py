"""The run folder: one configuration, its metrics, checkpoints, student and report.

Format 1 of `config.json` (version 0.1.0) was flat, named the final weights `carries`, and had options that version
0.2.0 removed. Where these stood at what this version always does, the record equals a new one and its run goes on; any
other value is named by `removed_values`. Runs of formats 1 and 2 render their views at the teacher's input size, later
ones at the student's.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from vl2v_client.config.run import Imputation, Selector
from vl2v_client.config.training import FinalWeights, TrainingConfig
from vl2v_client.core.errors import CacheError, RunError
from vl2v_client.core.files import read_json, write_durably
from vl2v_client.data.pixel_file import PIXEL_BYTES, PixelFile
from vl2v_client.student.loss.methods import SINCE_OF_STAGES, SINCE_OF_TRAINING
from vl2v_contract.identity import sha256_hex

CONFIG_FILE = "config.json"
CHOICE_FILE = "choice.json"  # which queries a selection chose, once it has
PURCHASE_FILE = "purchase.json"  # the name under which all that the run buys under its caps is counted
USED_FILE = "used.json"  # which embeddings the run trains on, once its purchase is done
LEFT_OUT_FILE = "left_out.json"  # which embeddings a sweep's purchase went on without
IMAGES_FILE = "images.json"  # which images the run trained on, selected with and was judged by, once it is done
_RECORDS = (CONFIG_FILE, CHOICE_FILE, PURCHASE_FILE, USED_FILE)
_DERIVED = frozenset({"stages", "erm_learning_rates"})
"""Settings that follow from others, and are long: no news beside them."""
_SHOWN = 5
_MAX_CONFIG_BYTES = 16 * 2**20
_MAX_RECORD_BYTES = 2**30  # size of the files that name each image or embedding of a run: a million take 200 MB
_BEFORE_TRAINING = frozenset({".lock", *_RECORDS, *(f"{name}.partial" for name in _RECORDS)})


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
        """Names the configuration, for files that belong to it."""
        return sha256_hex(json.dumps(self.written, sort_keys=True).encode())

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
        path = self.path / name
        try:
            write_durably(path, json.dumps({"format": 1, "of": self.settings_sha, **record}))
        except OSError as error:
            raise CacheError(f"{path} cannot be written ({error.strerror}): make room, then run again") from error


@contextmanager
def claim_run_folder(
    path: Path, config: Mapping[str, Any], *, shared_answers: Path | None = None
) -> Iterator[RunFolder]:
    """Make the folder, or go on in it if it holds a run of exactly this configuration; one process at a time.

    Raises:
        RunError: The folder holds something else, another configuration, or a run that is under way.
        CacheError: The folder cannot be written.
    """
    config = json.loads(json.dumps(config))  # as the file will give it back: lists for tuples
    with _writing(path):
        path.mkdir(parents=True, exist_ok=True)
        _find_run(path, config)  # so that no lock is left in a folder of something else
    with locked(path):
        with _writing(path):
            folder = _find_run(path, config)
            if folder is None:
                write_durably(path / CONFIG_FILE, json.dumps(config, indent=2) + "\n")
                folder = RunFolder(path, config, config)
        yield replace(folder, shared_answers=shared_answers)


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


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep every other process out of a folder.

    Raises:
        RunError: Another process is at work in it.
        CacheError: The folder cannot be written.
    """
    with _writing(path):
        lock = (path / ".lock").open("a")  # "w" would empty the file that a link leads to
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"another process is at work in {path}: wait for it, or use another folder") from error
        yield


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(f"{path} cannot be written ({error.strerror}): use another folder") from error


def _find_run(path: Path, config: Mapping[str, Any]) -> RunFolder | None:
    """Return the run in a folder; None if there is none, or one of other settings before training.

    A folder without anything of training has no run in it yet: its purchase was declined, say.

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
    changed = _differences(found.config, current_config(config))
    if changed and others:
        told = [one for one in changed if one.partition(" ")[0] not in _DERIVED] or changed
        shown = "; ".join(told[:_SHOWN]) + (f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")
        raise RunError(f"{path} holds a run with other settings ({shown}): use those, or choose another report.out")
    return None if changed else found


def _differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name} was {before!r}, is {after!r}")
    return found


CONFIG_FORMAT = 3
TEACHER_SIZE_FORMAT = 2  # of a run whose views are rendered at the teacher's input size
CHOICE_FORMAT = 2  # format 1 had several rounds

_MOVED = {
    "data": {"data": "root", "target_domain": "target_domain", "prompt_templates": "prompts", "seed": "seed"},
    "purchase": {"views": "views", "view_recipe": "view_recipe", "impute": "impute", "online": "online"},
    "training": {"preset": "preset", "method": "method", "baselines": "baselines", "train_views": "train_views"},
}
"""Group: its options by their names in format 1."""

_KEPT = ("sweep", "student", "erm_learning_rates", "teacher", "files_sha", "style_targets")


def current_config(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record of `config.json` in this version's format; removed values stay, so that no new run equals it."""
    if record.get("format") == TEACHER_SIZE_FORMAT:
        return _with_later({**record, "format": CONFIG_FORMAT})
    if record.get("format") != 1:
        return _with_later(dict(record))
    config: dict[str, Any] = {name: record[name] for name in _KEPT if name in record}
    for group, names in _MOVED.items():
        config[group] = {new: record[old] for old, new in names.items() if old in record}
    spending = dict(record.get("spending", {}))
    if spending.pop("rounds", 1) != 1:
        config["purchase"]["rounds"] = record["spending"]["rounds"]
    config["purchase"] |= {"select": spending.get("select"), "max_queries": spending.get("max_queries")}
    config["training"] |= _renamed(record.get("training", {}))
    if "stages" in record:
        config["stages"] = [_renamed(stage) for stage in record["stages"]]
    if config.get("style_targets") == "bought":
        del config["style_targets"]
    return _with_later(config | {"format": CONFIG_FORMAT})


def options_of_before(path: Path) -> dict[str, Any]:
    """Return options of a run or sweep that an earlier version began, all in one; nothing if there is none.

    They take the place of the preset's values, which have changed since: those of the training, and the views' recipe.
    """
    try:
        folder = open_run_folder(path)
        training, purchase = folder.config["training"], folder.config["purchase"]
        if folder.written["format"] == CONFIG_FORMAT:
            return {}
        kept = TrainingConfig.model_validate({name: training[name] for name in {*training} - _CHOSEN_BY_NAME})
        return {**kept.named(), "view_recipe": purchase["view_recipe"]}
    except (RunError, KeyError, TypeError, ValidationError):  # what is wrong is said where the folder is claimed
        return {}


_CHOSEN_BY_NAME = frozenset({"method", "baselines", "seed", "train_views"})


def _with_later(config: dict[str, Any]) -> dict[str, Any]:
    """Add the options that came later, at the values that stand for what was done before."""
    training, stages = config.get("training"), config.get("stages")
    if isinstance(training, dict):
        config["training"] = {**SINCE_OF_TRAINING, **training}
    if isinstance(stages, list):
        config["stages"] = [{**SINCE_OF_STAGES, **stage} if isinstance(stage, dict) else stage for stage in stages]
    return config


def removed_values(config: Mapping[str, Any]) -> list[str]:
    """Name what a configuration in this version's format asks for that this version cannot do."""
    purchase, training = config.get("purchase", {}), config.get("training", {})
    found = [f"style_targets {config['style_targets']!r}"] if "style_targets" in config else []
    found += [f"rounds {purchase['rounds']!r}"] if "rounds" in purchase else []
    for name, value, known in (
        ("select", purchase.get("select"), (None, *get_args(Selector))),
        ("impute", purchase.get("impute", "none"), get_args(Imputation)),
        ("carries", training.get("final_weights", "swad"), get_args(FinalWeights)),
    ):
        found += [f"{name} {value!r}"] if value not in known else []
    return found


def _renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"final_weights" if name == "carries" else name: value for name, value in options.items()}
