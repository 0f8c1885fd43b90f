"""What earlier versions wrote into run folders, read as this version writes it.

Format 1 of `config.json` (version 0.1.0) had options that version 0.2.0 removed. Where they stood at what this version
always does, the record equals a new one and its run goes on; any other value is named by `removed_values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from vl2v_client.planning.selection import SELECTORS
from vl2v_client.student.stages import Selection
from vl2v_client.teacher.imputation import IMPUTATIONS

CONFIG_FORMAT = 2
CHOICE_FORMAT = 2


def current_config(record: Mapping[str, Any]) -> dict[str, Any]:
    """The record of `config.json` in this version's format; removed values stay, so that no new run equals it.

    Args:
        record: of a run or a sweep, as its file holds it; left as it is.
    """
    config = dict(record)
    if config.get("format") != 1:
        return config
    config["format"] = CONFIG_FORMAT
    if config.get("style_targets") == "bought":
        del config["style_targets"]
    if config.get("spending", {}).get("rounds") == 1:
        config["spending"] = {name: value for name, value in config["spending"].items() if name != "rounds"}
    if "training" in config:
        config["training"] = _renamed(config["training"])
    if "stages" in config:
        config["stages"] = [_renamed(stage) for stage in config["stages"]]
    return config


def _renamed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a training or a stage, of which format 1 called `final_weights` `carries`."""
    return {"final_weights" if name == "carries" else name: value for name, value in settings.items()}


def removed_values(config: Mapping[str, Any]) -> list[str]:
    """What a configuration in this version's format asks for that this version cannot do, in words."""
    spending = config.get("spending", {})
    found = [f"{name} {config[name]!r}" for name in ("style_targets",) if name in config]
    found += [f"rounds {spending['rounds']!r}"] if "rounds" in spending else []
    for name, value, known in (
        ("select", spending.get("select"), (None, *SELECTORS)),
        ("impute", config.get("impute", IMPUTATIONS[0]), IMPUTATIONS),
        ("final_weights", config.get("training", {}).get("final_weights", "swad"), get_args(Selection)),
    ):
        found += [f"{name} {value!r}"] if value not in known else []
    return found


def chosen_keys(record: Mapping[str, Any]) -> list[str]:
    """The cache keys that a record of `choice.json` names, in the order of buying; format 1 had a list for each round.

    Raises:
        KeyError: the record is damaged.
    """
    if record["format"] == 1:
        return [key for of_round in record["rounds"] for key in of_round]
    keys: list[str] = record["keys"]
    return keys
