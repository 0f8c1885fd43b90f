"""The command tree, and the one place where an error becomes a message and an exit code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import metadata
from typing import Annotated

import typer
from PIL import Image

from vl2v_client.cli.bars import STDERR, plain
from vl2v_client.cli.removed import refuse_removed
from vl2v_client.core.errors import ClientError

INTERRUPTED_EXIT_CODE = 130

app = typer.Typer(
    name="vl2v-client",
    help="Buy few CLIP embeddings, audit the bill, distil them into a small model of your own.",
    epilog=(
        "Exit codes: 0 done, 1 other error, 2 usage, 3 data set, 4 vendor refused or unreachable, 5 API key, "
        "6 budget or cap, 7 vendor, model or price changed, 8 cache, 9 run folder, 130 interrupted. "
        "`audit`: 0 clean, 1 differences, 2 could not verify."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(words: Sequence[str]) -> int:
    """Run the command line `words`; returns the exit code. An expected error is one message, never a traceback."""
    commands = command_tree()
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `data.images` refuses such files by name
    try:
        refuse_removed(words)
        commands(list(words), prog_name="vl2v-client")
    except ClientError as error:
        message = "\n".join(plain(line) for line in str(error).splitlines())
        STDERR.print(f"[bold red]error:[/] {message}", soft_wrap=True)
        return error.exit_code
    except SystemExit as stop:
        if stop.code == INTERRUPTED_EXIT_CODE:
            STDERR.print("interrupted; nothing bought is lost, and the same command goes on from here")
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return 0


@app.callback(invoke_without_command=True)
def _top(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(metadata.version("vl2v"))
        raise typer.Exit


def command_tree() -> typer.Typer:
    """All commands; they are added when the program runs, so that importing the package stays cheap."""
    if app.registered_commands:
        return app
    from vl2v_client.cli.audit import audit
    from vl2v_client.cli.buy import buy
    from vl2v_client.cli.cache import cache_app
    from vl2v_client.cli.distill import distill
    from vl2v_client.cli.evaluate import evaluate
    from vl2v_client.cli.pilot import pilot
    from vl2v_client.cli.plan import plan
    from vl2v_client.cli.predict import predict
    from vl2v_client.cli.shapes import shapes
    from vl2v_client.cli.sweep import sweep

    for command in (distill, sweep, plan, pilot, buy, evaluate, predict, audit, shapes):
        app.command()(command)
    app.add_typer(cache_app, name="cache")
    return app
