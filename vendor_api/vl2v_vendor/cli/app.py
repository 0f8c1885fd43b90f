"""The command tree, and the one place where an error becomes a message and an exit code."""

import os
import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Parameter

from vl2v_vendor.cli.accounts import accounts_app, log, prices_app
from vl2v_vendor.cli.console import convert_strictly, installed_version, print_line
from vl2v_vendor.cli.keys import keys_app, signing_keys_app
from vl2v_vendor.cli.ledger import ledger_app
from vl2v_vendor.cli.serve import parity, serve
from vl2v_vendor.domain.errors import VendorError

_TRACEBACK_VARIABLE = "VL2V_VENDOR_TRACEBACK"
_REFUSED, _USAGE, _FAULT = 1, 2, 70

app = App(
    name="vl2v-vendor",
    help="Sell CLIP embeddings per query, and account for every one of them.",
    help_epilogue="Exit codes: 0 done, 1 refused or not clean, 2 usage, 70 a fault of the program, 130 interrupted.",
    help_flags=("--help", "-h"),
    version=lambda: f"vl2v-vendor {installed_version()}",
    default_parameter=Parameter(negative=(), allow_repeating=True, converter=convert_strictly),
)
app.command(serve, help_epilogue="Example: `vl2v-vendor serve --model ViT-B-16-quickgelu --pretrained openai`")
app.command(parity, help_epilogue="Example: `vl2v-vendor parity --precision int8 --images photos`")
app.command(log, help_epilogue="Example: `vl2v-vendor log --account acme`")
for _group in (keys_app, accounts_app, prices_app, ledger_app, signing_keys_app):
    app.command(_group)
app.register_install_completion_command(add_to_startup=False, help="Write a script that completes words in the shell.")


def run(words: Sequence[str]) -> int:
    """Run the command line `words` and return the exit code; a refusal is one sentence on standard error.

    Raises:
        Exception: A fault of the program, if the environment asks for its traceback.
    """
    try:
        return invoke(words)
    except BrokenPipeError:  # nobody reads on, as behind `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _REFUSED
    except (VendorError, OSError) as error:
        print_line(f"error: {error}", err=True)
        return _REFUSED
    except Exception as error:
        if os.environ.get(_TRACEBACK_VARIABLE):
            raise
        print_line(f"error: unexpected {type(error).__name__}: {error}", err=True)
        print_line(
            f"This is a fault of the program; please report it with the output under {_TRACEBACK_VARIABLE}=1.", err=True
        )
        return _FAULT


def invoke(words: Sequence[str]) -> int:
    """Run the command line `words` and return the exit code.

    Raises:
        VendorError: The command is refused.
    """
    _, apps, rest = app.parse_commands(list(words))
    try:
        code = app(list(words), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print_line(f"error: {error}", err=True)
        return _USAGE
    if apps[-1].default_command is None and not rest:  # a group without a command, whose help was shown
        return _USAGE
    return int(code or 0)
