"""What options are called where their groups are not named: flags of the command line, keywords in Python."""

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from vl2v_client.config.run import RunConfig
from vl2v_client.config.training import Options
from vl2v_client.core.errors import UsageError

NAMES: Mapping[tuple[str, str], str] = {
    ("data", "root"): "data",
    ("data", "prompts"): "prompt",
    ("data", "seed"): "data_seed",
    ("purchase", "requests"): "workers",
    ("student", "name"): "student",
    ("student", "weights"): "student_weights",
    ("student", "size"): "student_size",
    ("training", "baselines"): "baseline",
    ("training", "distill_learning_rate"): "learning_rate",
    ("training", "final_weights"): "carry",
    ("training", "workers"): "loader_workers",
}
"""Names that are not their option's own, by group and option."""


def option_name(group: str, option: str) -> str:
    """Return the name of an option."""
    return NAMES.get((group, option), option)


def options_by_name() -> dict[str, tuple[str, str]]:
    """Return the group and option of each name."""
    return {
        option_name(group, option): (group, option)
        for group, info in RunConfig.model_fields.items()
        for option in type(info.default).model_fields
    }


def rename_options(message: str, name: Callable[[str, str], str]) -> str:
    """Return a message in which each option, such as `purchase.views`, has the name that its group and option get."""
    places = set(options_by_name().values())

    def renamed(found: re.Match[str]) -> str:
        group, option = found.groups()
        return name(group, option) if (group, option) in places else found.group()

    return re.sub(rf"\b({'|'.join(RunConfig.model_fields)})\.([a-z_]+)\b", renamed, message)


def config_of(options: Mapping[str, Any], base: RunConfig | None = None) -> RunConfig:
    """Return the run that options describe by name.

    Args:
        options: Values by name; one text stands for a list of one, where a list is wanted.
        base: Values of the others; the defaults if left out.

    Raises:
        UsageError: An option is unknown or out of range; the message names it.
    """
    places, config = options_by_name(), RunConfig() if base is None else base
    for name, value in options.items():
        if name not in places:
            close = get_close_matches(name, places, n=1)
            hint = f"did you mean {close[0]!r}?" if close else "the help of `vl2v-client distill` lists all of them"
            raise UsageError(f"there is no option {name!r}: {hint}")
        group, option = places[name]
        options_of_group: Options = getattr(config, group)
        if isinstance(value, str) and isinstance(type(options_of_group).model_fields[option].default, tuple):
            value = (value,)
        try:
            config = config.replace(**{group: options_of_group.replace(**{option: value})})
        except ValidationError as error:
            what = error.errors(include_url=False)[0]["msg"]
            raise UsageError(f"{name} {value!r}: {what[:1].lower()}{what[1:]}") from error
    return config
