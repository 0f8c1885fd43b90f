"""The `vl2v-vendor` command."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from vl2v_contract.texts import printable
from vl2v_vendor.cli.version import installed_version
from vl2v_vendor.domain.errors import VendorError

_TRACEBACK_VARIABLE = "VL2V_VENDOR_TRACEBACK"
_UNEXPECTED_EXIT_CODE = 70


def main() -> None:
    """Run the command line; a refusal is one sentence on standard error and exit code 1.

    Raises:
        Exception: A fault of the program, if the environment asks for its traceback.
    """
    try:
        build_app()()
    except VendorError as error:
        _complain(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        _complain(f"error: {error}")
        sys.exit(1)
    except Exception as error:
        if os.environ.get(_TRACEBACK_VARIABLE):
            raise
        _complain(f"error: unexpected {type(error).__name__}: {error}")
        _complain(f"This is a fault of the program; please report it with the output under {_TRACEBACK_VARIABLE}=1.")
        sys.exit(_UNEXPECTED_EXIT_CODE)


def _complain(sentence: str) -> None:
    sys.stderr.write(f"{printable(sentence)}\n")


def build_app() -> typer.Typer:
    """The command with all its subcommands."""
    from vl2v_vendor.cli import accounts, keys, ledger, prices, signing_key
    from vl2v_vendor.cli.log import log
    from vl2v_vendor.cli.parity import parity
    from vl2v_vendor.cli.serve import serve

    app = typer.Typer(name="vl2v-vendor", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
    app.callback()(_root)
    app.command()(serve)
    app.command()(log)
    app.command()(parity)
    groups = {"keys": keys, "accounts": accounts, "prices": prices, "ledger": ledger, "signing-key": signing_key}
    for name, group in groups.items():
        app.add_typer(group.app, name=name)
    return app


def _root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=lambda asked: _show_version(asked), help="Show it.")
    ] = False,
) -> None:
    """Sell CLIP embeddings per query, and account for every one of them."""


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"vl2v-vendor {installed_version()}")
        raise typer.Exit
