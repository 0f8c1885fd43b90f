"""What earlier versions wrote into run folders, read as this version writes it.

Format 1 of `config.json` (version 0.1.0) was flat, named the final weights `carries`, and had options that version
0.2.0 removed. Where these stood at what this version always does, the record equals a new one and its run goes on; any
other value is named by `removed_values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from vl2v_client.config.run import Imputation, Selector
from vl2v_client.config.training import FinalWeights

CONFIG_FORMAT = 2
CHOICE_FORMAT = 2

_MOVED = {
    "data": {"data": "root", "target_domain": "target_domain", "prompt_templates": "prompts", "seed": "seed"},
    "purchase": {"views": "views", "view_recipe": "view_recipe", "impute": "impute", "online": "online"},
    "training": {"preset": "preset", "method": "method", "baselines": "baselines", "train_views": "train_views"},
}
"""Group: its options by their names in format 1."""

_KEPT = ("sweep", "student", "erm_learning_rates", "teacher", "files_sha", "style_targets")


def current_config(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of `config.json` in this version's format; removed values stay, so that no new run equals it.

    Args:
        record: Record of a run or a sweep, as its file holds it.
    """
    if record.get("format") != 1:
        return dict(record)
    config: dict[str, Any] = {name: record[name] for name in _KEPT if name in record}
    for group, names in _MOVED.items():
        config[group] = {new: record[old] for old, new in names.items() if old in record}
    spending = dict(record.get("spending", {}))
    if spending.pop("rounds", 1) != 1:
        config["purchase"]["rounds"] = record["spending"]["rounds"]
    config["purchase"] |= {"select": spending.get("select"), "max_queries": spending.get("max_queries")}
    config["training"] |= {_renamed(name): value for name, value in record.get("training", {}).items()}
    if "stages" in record:
        stages = record["stages"]
        config["stages"] = [{_renamed(name): value for name, value in stage.items()} for stage in stages]
    if config.get("style_targets") == "bought":
        del config["style_targets"]
    return config | {"format": CONFIG_FORMAT}


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


def chosen_keys(record: Mapping[str, Any]) -> list[str]:
    """Return the cache keys that a record of `choice.json` names, in the order of buying; format 1 had several rounds.

    Raises:
        KeyError: The record is damaged.
    """
    if record["format"] == 1:
        return [key for of_round in record["rounds"] for key in of_round]
    keys: list[str] = record["keys"]
    return keys


def _renamed(name: str) -> str:
    return "final_weights" if name == "carries" else name
