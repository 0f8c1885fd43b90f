"""The command tree, and the one place where an error becomes a message and an exit code."""

import warnings
from collections.abc import Mapping, Sequence
from importlib import metadata
from itertools import zip_longest

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import UnusedCliTokensError
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vl2v_client.cli.console import show_error, show_notice
from vl2v_client.cli.options import convert_strictly, flag_name, with_flags
from vl2v_client.core.errors import INTERRUPTED, INTERRUPTED_EXIT_CODE, ClientError, UsageError

app = App(
    name="vl2v-client",
    help="Buy few CLIP embeddings, audit the bill, distil them into a small model of your own.",
    help_epilogue=(
        "Exit codes: 0 done, 1 other error, 2 usage, 3 data set, 4 vendor refused or unreachable, 5 API key, "
        "6 budget or cap, 7 vendor, model or price changed, 8 cache, 9 run folder, 130 interrupted. "
        "`audit`: 0 clean, 1 differences, 2 could not verify, 3 bought by other software."
    ),
    help_flags=("--help", "-h"),
    version=lambda: metadata.version("vl2v"),
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=(), allow_repeating=True, converter=convert_strictly),
)

_RUN = "--data photos --target-domain sketch"
_COMMANDS = {
    "distill": ("distill", "Plan, buy, align, distil, evaluate on the unseen domain, export.", _RUN),
    "sweep": (
        "distill",
        "Hold out each domain in turn, with several seeds and methods; buy once for all.",
        "--data photos --seed 0 --seed 1 --seed 2",
    ),
    "check": ("check", "Count a data set's images by class and domain; name every file that cannot be used.", "photos"),
    "plan": ("plan", "Show what the same options of `distill` would buy, and the price. Costs nothing.", _RUN),
    "pilot": ("plan", "Ask about a few training images, and say what more of them are worth.", _RUN),
    "buy": ("plan", "Buy the embeddings that the cache lacks.", f"{_RUN} --max-cost 2.50"),
    "evaluate": (
        "distill",
        "Score the exported student by domain; with --teacher, beside the zero-shot teacher.",
        "runs/photos --teacher",
    ),
    "report": (
        "report",
        "Write the page of a finished run or sweep again, or compare several runs on one.",
        "runs/photos-sketch-seed0 runs/photos-sketch-seed1",
    ),
    "predict": (
        "predict",
        "Classify images with a finished student. Needs no vendor.",
        "runs/photos new.jpg",
    ),
    "bill": ("bill", "Show what is left, what was spent by day, key and model, and the newest entries.", "--json"),
    "export": (
        "export",
        "Write the student for timm, the Hugging Face Hub or ONNX Runtime.",
        "runs/photos-sketch-seed0 --format onnx",
    ),
    "audit": ("audit", "Verify every entry of the vendor's ledger and compare it with your own.", "--recover"),
    "shapes": ("shapes", "Draw the `shapes` data set of the demo.", "data/shapes"),
}
"""Command: its module, which is loaded when it is called, what the list of commands says of it, and an example."""

for _name, (_module, _summary, _example) in _COMMANDS.items():
    _epilogue = f"Example: `vl2v-client {_name} {_example}`"
    app.command(f"vl2v_client.cli.{_module}:{_name}", name=_name, help=_summary, help_epilogue=_epilogue)
app.command(
    "vl2v_client.cli.cache:cache_app", name="cache", help="Look at the cache of bought embeddings, and check it."
)

app.register_install_completion_command(add_to_startup=False, help="Write a script that completes words in the shell.")


def run(words: Sequence[str]) -> int:
    """Run the command line `words` and return the exit code; an expected error is one message, never a traceback."""
    try:
        return invoke(words)
    except ClientError as error:
        show_error("error", with_flags(str(error)))
        return error.exit_code
    except KeyboardInterrupt:
        show_notice(INTERRUPTED)
        return INTERRUPTED_EXIT_CODE


def invoke(words: Sequence[str]) -> int:
    """Run the command line `words` and return the exit code.

    Raises:
        ClientError: Whatever the command ends with; a usage that is wrong too.
    """
    warnings.filterwarnings("ignore", "Image size .* exceeds limit")  # `data.images` refuses such files by name
    refuse_removed(words)
    try:
        code = app(list(words), exit_on_error=False, print_error=False, result_action="return_value")
    except UnusedCliTokensError as error:
        raise UsageError(f"{error} Name what they are, such as --data for a data set.") from error
    except CycloptsError as error:
        raise UsageError(str(error)) from error
    except ValidationError as error:
        raise UsageError("; ".join(map(_describe, error.errors()))) from error
    return int(code or 0)


def _describe(error: ErrorDetails) -> str:
    group, option, *_ = (*map(str, error["loc"]), "")
    message = error["msg"]
    return f"{flag_name(group, option)} {error['input']}: {message[0].lower()}{message[1:]}"


REMOVED_IN = "0.2.0"

REMOVED_OPTIONS: Mapping[str, str] = {
    "--rounds": "a run buys in one round: leave it out",
    "--style-targets": "styled views are bought, or borrow their image's target: leave it out, and choose how many "
    "are bought with --views",
}
"""Option: what to do instead."""

REMOVED_VALUES: Mapping[str, Mapping[str, str]] = {
    "--select": dict.fromkeys(
        ("herding", "max-herding", "typiclust", "margin", "pcoreset"),
        "use --select random, or --select k-center to cover the features",
    ),
    "--impute": dict.fromkeys(("class-mean", "knn"), "use --impute none, or --impute ridge"),
    "--carry": {"iidmax": "use --carry swad"},
}
"""Option: its removed values, and what to use instead of each."""


def refuse_removed(words: Sequence[str]) -> None:
    """Refuse a command line that names a removed option or value.

    Raises:
        UsageError: Names the option or value, the version that removed it, and the replacement.
    """
    for word, following in zip_longest(words, words[1:], fillvalue=""):
        option, equals, attached = word.partition("=")
        if option in REMOVED_OPTIONS:
            raise UsageError(f"{option} was removed in version {REMOVED_IN}: {REMOVED_OPTIONS[option]}")
        value = attached if equals else following
        if value in REMOVED_VALUES.get(option, ()):
            raise UsageError(f"{option} {value} was removed in version {REMOVED_IN}: {REMOVED_VALUES[option][value]}")
