"""Command-line options, made from their declarations in `config`; how a flag differs from its option stands here."""

import functools
import inspect
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, get_args

from cyclopts import Group, Parameter, Token, convert
from pydantic.fields import FieldInfo

from vl2v_client.config.names import option_name, rename_options
from vl2v_client.config.run import DataConfig, PurchaseConfig, ReportConfig, RunConfig, StudentConfig
from vl2v_client.config.training import TrainingConfig, declared

_NEGATIVES = {
    "channels_last": "--no-channels-last",
    "own_normalisation": "--paper-normalisation",
    "probe": "--no-probe",
}
_VARIABLES = {"vendor_url": "VL2V_VENDOR_URL", "cache": "VL2V_CACHE"}

COMMON = Group("Most used", sort_key=0)
PURCHASE = Group("Purchase", sort_key=2)
CLUSTER = Group("Several at a time", sort_key=5)
OUTPUT = Group("Output", sort_key=6)

ApiKey = Annotated[
    str | None,
    Parameter(
        env_var="VL2V_API_KEY", show_default=False, group=PURCHASE, help="API key; the variable hides it better."
    ),
]
AsJson = Annotated[
    bool,
    Parameter(
        name="--json",
        group=OUTPUT,
        show_default=False,
        help="Write JSON to standard output, and draw no progress bars.",
    ),
]
Yes = Annotated[bool, Parameter(name=("--yes", "-y"), group=COMMON, show_default=False, help="Spend without asking.")]
_ConfigFile = Annotated[
    Path | None, Parameter(name="--config", group=OUTPUT, help="YAML file of options by group; flags override it.")
]


@dataclass(frozen=True, slots=True)
class Section:
    """The options of one group that a command has.

    Attributes:
        name: Name of the group in `RunConfig`.
        fields: Declarations by option.
        heading: Heading in `--help` of those that are not among the most used.
    """

    name: str
    fields: Mapping[str, FieldInfo]
    heading: Group

    def only(self, *kept: str) -> "Section":
        """Return the section of these options alone."""
        return self.but(*(self.fields.keys() - kept))

    def but(self, *without: str) -> "Section":
        """Return the section without these options."""
        return replace(self, fields={name: info for name, info in self.fields.items() if name not in without})


DATA_OPTIONS = Section("data", DataConfig.model_fields, Group("Data", sort_key=1))
PURCHASE_OPTIONS = Section("purchase", PurchaseConfig.model_fields, PURCHASE)
STUDENT_OPTIONS = Section("student", StudentConfig.model_fields, Group("Student", sort_key=3))
TRAINING_OPTIONS = Section("training", TrainingConfig.model_fields, Group("Training", sort_key=4))
REPORT_OPTIONS = Section("report", ReportConfig.model_fields, OUTPUT)
RUN_OPTIONS = (DATA_OPTIONS, PURCHASE_OPTIONS, STUDENT_OPTIONS, TRAINING_OPTIONS, REPORT_OPTIONS)
PURCHASING_OPTIONS = (
    DATA_OPTIONS,
    PURCHASE_OPTIONS.but("local_teacher", "local_weights", "local_precision", "online"),
    STUDENT_OPTIONS,
    TRAINING_OPTIONS,
)
"""Those of commands that plan or buy for a run."""


def flag_name(group: str, option: str) -> str:
    """Return the flag of an option, with its dashes."""
    return "--" + option_name(group, option).replace("_", "-")


def as_flags(named: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the command line that names these options, by group and option."""
    return shlex.join(
        word
        for group, options in named.items()
        for option, value in options.items()
        for one in (value if isinstance(value, tuple) else (value,))
        for word in _words(group, option, one)
    )


def _words(group: str, option: str, value: Any) -> tuple[str, ...]:
    if value is False:
        return (_NEGATIVES[option],) if option in _NEGATIVES else ()
    flag = flag_name(group, option)
    return () if value is None else (flag,) if value is True else (flag, str(value))


def as_command(command: str, config: RunConfig, changes: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the command line of a run with all that somebody named, and other values of some options.

    Args:
        command: Name of the command.
        config: The run as somebody described it; what a variable of the environment names is left to it.
        changes: Values by group and option; None leaves an option out.
    """
    named = {group: {**getattr(config, group).named(), **changes.get(group, {})} for group in RunConfig.model_fields}
    for option, variable in _VARIABLES.items():
        if variable in os.environ:
            named["purchase"].pop(option, None)
    return f"vl2v-client {command} {as_flags(named)}".rstrip()


def with_flags(message: str) -> str:
    """Return a message with the flags of the options that it names, such as `--views` for `purchase.views`."""
    return rename_options(message, flag_name)


def convert_strictly(wanted: Any, tokens: Sequence[Token]) -> Any:
    """Convert as cyclopts does, but round no fraction to a whole number.

    Raises:
        ValueError: A number is wanted, and a word is none.
    """
    if int in (wanted, *get_args(wanted)):
        for token in tokens:
            try:
                int(token.value)
            except ValueError:
                raise ValueError(f"{token.value!r} is not a whole number") from None
    try:
        return convert(wanted, tokens)
    except ArithmeticError:  # what `Decimal` raises
        raise ValueError(f"{tokens[0].value!r} is not a number") from None


def takes(*sections: Section, file: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options of some sections, and `--config`, if it takes a file of them.

    It gets the run that both describe as its parameter `config`; the command line wins.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "config"]
        made = [_parameter(section, option, info) for section in sections for option, info in section.fields.items()]

        @functools.wraps(command)
        def run(*arguments: Any, config_file: Path | None = None, **given: Any) -> Any:
            named = {
                section.name: {
                    option: given.pop(f"{section.name}_{option}")
                    for option in section.fields
                    if f"{section.name}_{option}" in given
                }
                for section in sections
            }
            config = RunConfig.load(config_file, overrides=named) if config_file else RunConfig.model_validate(named)
            return command(*arguments, config=config, **given)

        if file:
            keyword = inspect.Parameter.KEYWORD_ONLY
            made.append(inspect.Parameter("config_file", keyword, default=None, annotation=_ConfigFile))
        in_order = sorted([*made, *own], key=lambda one: one.kind)
        run.__signature__ = inspect.Signature(in_order)  # type: ignore[attr-defined]
        return run

    return decorate


def _parameter(section: Section, option: str, info: FieldInfo) -> inspect.Parameter:
    default = info.default
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    flag = Parameter(
        name=flag_name(section.name, option),
        group=COMMON if declared(info, "common") else section.heading,
        help=info.description,
        negative=_NEGATIVES.get(option, ()),
        env_var=_VARIABLES.get(option),
        show_default=(lambda _: shown) if default not in (None, False, ()) else False,
    )
    annotation = Annotated[info.annotation, flag]  # type: ignore[name-defined]
    place = f"{section.name}_{option}"
    return inspect.Parameter(place, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
