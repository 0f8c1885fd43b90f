"""`vl2v-client predict`: what a finished student says of image files, as a table, CSV or JSON Lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.table import Column

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import PlainConsole, csv_writer, json_writer, plain_table
from vl2v_client.cli.options import COMMON, OUTPUT, AsJson
from vl2v_client.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from vl2v_client.evaluation.image_predictions import FilePrediction

Format = Literal["table", "csv", "jsonl"]


def predict(
    run: Annotated[Path, Parameter(help="Folder of a `distill`, or what `export` wrote.")],
    images: Annotated[
        list[str],
        Parameter(
            allow_leading_hyphen=True,
            help="Image files, folders of them, patterns such as 'new/*.jpg'; - reads paths, one a line.",
        ),
    ],
    /,
    *,
    format_: Annotated[
        Format | None,
        Parameter(name="--format", group=COMMON, help="Table on a terminal, else CSV, if left out."),
    ] = None,
    top_k: Annotated[int, Parameter(group=COMMON, validator=Number(gte=1), help="Likeliest classes to show.")] = 1,
    all_probabilities: Annotated[
        bool, Parameter(group=COMMON, show_default=False, help="Show the probability of every class.")
    ] = False,
    threshold: Annotated[
        float,
        Parameter(group=COMMON, validator=Number(gte=0, lte=1), help="Name no class below this probability: abstain."),
    ] = 0.0,
    device: Annotated[str, Parameter(group=OUTPUT, help="auto, cpu, cuda or cuda:N.")] = "auto",
    batch_size: Annotated[
        int, Parameter(group=OUTPUT, validator=Number(gte=1), help="Images that are classified at once.")
    ] = 128,
    as_json: AsJson = False,
) -> None:
    """Classify images; a file that cannot be read is a row with its error. Needs no vendor.

    Raises:
        UsageError: Both `--json` and another format are named.
        DataError: There is no image, or some could not be classified; the others were.
    """
    from vl2v_client.evaluation.image_predictions import classify_files, find_files
    from vl2v_client.export.exported import load_classifier

    if as_json and format_ not in (None, "jsonl"):
        raise UsageError(f"--json is --format jsonl, and --format {format_} is given: leave one out")
    chosen: Format = "jsonl" if as_json else format_ or ("table" if sys.stdout.isatty() else "csv")
    named = list(_names(images))
    model = load_classifier(run, device)
    files = find_files(named)
    if not files:
        raise DataError("no path was given on standard input: write one a line")
    names = model.class_names
    layout = Layout(names, min(top_k, len(names)), all_probabilities, threshold)
    failed: list[FilePrediction] = []
    with _writer(chosen, layout) as write:
        quiet = as_json or (chosen != "table" and sys.stdout.isatty())  # there, rows show how far it is
        with bars(quiet=quiet) as progress:
            for one in classify_files(model, files, batch_size=batch_size, progress=progress):
                write(one)
                failed += [one] if one.error else []
    if failed:
        first = failed[0].error
        raise DataError(f"{len(failed):,} of {len(files):,} images could not be classified, the first: {first}")


def _names(given: Sequence[str]) -> Iterator[str]:
    """Yield what was named, and in the place of `-` each line of standard input; NUL may stand for the line ends."""
    for name in given:
        if name != "-":
            if name.startswith("-"):  # the parser lets it pass for the sake of `-`
                raise UsageError(f"unknown option {name}; a file of this name is given as ./{name}")
            yield name
            continue
        data = sys.stdin.buffer.read()
        lines = data.split(b"\0") if b"\0" in data else data.splitlines()
        yield from (os.fsdecode(line) for line in lines if line)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a row says.

    Attributes:
        names: Names of the classes, `[C]`.
        top_k: Likeliest classes shown, 1 to C.
        every: Whether the probability of every class is shown.
        threshold: Probability below which no class is named.
    """

    names: Sequence[str]
    top_k: int
    every: bool
    threshold: float

    def header(self) -> list[str]:
        """Return the columns between path and error."""
        numbered = [f"{what}_{rank}" for rank in range(2, self.top_k + 1) for what in ("class", "probability")]
        return ["class", "probability", *numbered, *(f"probability of {name}" for name in self.names if self.every)]

    def likeliest(self, one: FilePrediction) -> list[tuple[str | None, float]]:
        """Return the likeliest classes with their probabilities; the first is `None` where the student abstains."""
        assert one.probabilities is not None
        order = (-one.probabilities).argsort(kind="stable")[: self.top_k].tolist()
        pairs = [(self.names[index], float(one.probabilities[index])) for index in order]
        abstains = pairs[0][1] < self.threshold
        return [(None if abstains and place == 0 else name, share) for place, (name, share) in enumerate(pairs)]

    def cells(self, one: FilePrediction) -> list[str]:
        """Return a row of `header`."""
        if one.probabilities is None:
            return [""] * len(self.header())
        pairs = [(name or "", f"{probability:.4f}") for name, probability in self.likeliest(one)]
        every = one.probabilities.tolist() if self.every else []
        return [*(cell for pair in pairs for cell in pair), *(f"{probability:.4f}" for probability in every)]

    def document(self, one: FilePrediction) -> dict[str, Any]:
        """Return a row as a JSON object."""
        if one.probabilities is None:
            return {"path": one.path, "error": one.error}
        pairs = [{"class": name, "probability": round(share, 6)} for name, share in self.likeliest(one)]
        row: dict[str, Any] = {"path": one.path, **pairs[0]}
        if self.top_k > 1:
            row["top"] = pairs
        if self.every:
            shares = one.probabilities.tolist()
            row["probabilities"] = {name: round(share, 6) for name, share in zip(self.names, shares, strict=True)}
        return row


@contextmanager
def _writer(chosen: Format, layout: Layout) -> Iterator[Callable[[FilePrediction], None]]:
    """Yield what writes a row. Standard output is held from before the bars are drawn, which rich would mix it with."""
    if chosen == "jsonl":
        write_json = json_writer()
        yield lambda one: write_json(layout.document(one))
    elif chosen == "csv":
        write_row = csv_writer()
        write_row(["path", *layout.header(), "error"])
        yield lambda one: write_row([one.path, *layout.cells(one), one.error or ""])
    else:
        rows: list[list[str]] = []
        try:
            yield lambda one: rows.append([one.path, *layout.cells(one), one.error or ""])
        finally:
            _show_table(rows, layout)


def _show_table(rows: list[list[str]], layout: Layout) -> None:
    columns = [Column(name, justify="right" if name.startswith("probability") else "left") for name in layout.header()]
    if any(row[-1] for row in rows):
        columns.append(Column("error"))
    else:
        rows = [row[:-1] for row in rows]
    if rows:
        PlainConsole().print(plain_table("path", *columns, rows=rows))
