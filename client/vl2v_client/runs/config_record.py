"""The record of a run's settings, `config.json`, in this version's format, whichever version wrote it.

Format 1 (version 0.1.0) was flat, named the final weights `carries`, and had options that version 0.2.0 removed. Where
these stood at what this version always does, the record equals a new one and its run goes on; any other value is named
by `removed_values`. Runs of formats 1 and 2 render their views at the teacher's input size, later ones at their
student's.

A run that was extended names its further steps; without them its record equals the one that it had before.
"""

from collections.abc import Mapping
from typing import Any, get_args

from vl2v_client.config.run import Imputation, Selector
from vl2v_client.config.training import FinalWeights
from vl2v_client.student.loss.extension import EXTENSION
from vl2v_client.student.loss.first_version import SINCE_OF_STAGES, SINCE_OF_TRAINING

CONFIG_FORMAT = 3
TEACHER_SIZE_FORMAT = 2  # of a run whose views are rendered at the teacher's input size

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


def extension(config: Mapping[str, Any]) -> list[int]:
    """Return the further steps that a record in any format names, one number for each time that it was extended."""
    training = config.get("training")
    return list(training.get("extend", ())) if isinstance(training, dict) else []


def without_extension(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record in any format as it was before its run was extended."""
    plain = dict(config)
    if isinstance(config.get("training"), dict):
        plain["training"] = {name: value for name, value in config["training"].items() if name != "extend"}
    if isinstance(config.get("stages"), list):
        plain["stages"] = [one for one in config["stages"] if not _is_extension(one)]
    return plain


def with_extension(config: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record, in its own format, extended as another record of the same run is."""
    extended = without_extension(config)
    extended["training"] = {**extended["training"], "extend": extension(other)}
    further = [one for one in other.get("stages", ()) if _is_extension(one)]
    return {**extended, "stages": [*extended.get("stages", ()), *further]}


def _is_extension(stage: Any) -> bool:
    return isinstance(stage, dict) and str(stage.get("name", "")).startswith(EXTENSION)
