"""`vl2v-client check`: what a data set holds, before anything is asked about it; `plan` shows a part of this."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.table import Column

from vl2v_client.cli.bars import bars
from vl2v_client.cli.console import plain_table, show, stacked
from vl2v_client.cli.options import DATA_OPTIONS, AsJson, takes
from vl2v_client.cli.vendor import notify
from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

    from vl2v_client.data.folder import DomainDataset
    from vl2v_client.data.inspection import Inspection

_FILES_SHOWN = 20


@takes(DATA_OPTIONS.only("target_domain", "prompts"))
def check(
    data: Annotated[Path, Parameter(help="Data set folder: domain/class/file, or class/file.")],
    /,
    *,
    config: RunConfig,
    as_json: AsJson = False,
) -> None:
    """Show what a data set holds and how its classes are asked about; name every file that cannot be used.

    Raises:
        DataError: The folder is laid out in another way, or images in it cannot be used.
    """
    from vl2v_client.data.inspection import inspect

    dataset, prompts = open_data(config.replace(data=config.data.replace(root=data)))
    with bars(quiet=as_json) as progress:
        found = inspect(dataset, progress=progress)
    document = data_json(dataset, prompts) | {
        "broken": found.broken,
        "ignored": found.ignored,
        "duplicates": found.duplicates,
    }
    show(document, stacked(data_table(dataset, prompts), *_lists(dataset.root, found)), as_json=as_json)
    if found.broken:
        raise DataError(
            f"{len(found.broken):,} images cannot be used: mend or remove those that are named above, or leave them "
            "out with data.skip_broken"
        )


def open_data(config: RunConfig) -> tuple[DomainDataset, list[list[str]]]:
    """Return a run's data set, which can be split as the run will split it, and the prompts of each class.

    Raises:
        UsageError: No data set is named.
        DataError: It cannot be used.
    """
    from vl2v_client.data.folder import check_class_names, open_dataset
    from vl2v_client.data.layout import refuse_one_class
    from vl2v_client.data.splits import split
    from vl2v_client.runs.resolution import resolve_run, run_choice

    choice = run_choice(resolve_run(config))
    dataset = open_dataset(choice.data)
    refuse_one_class(dataset.root, dataset.class_names)
    check_class_names(dataset.class_names)
    split(dataset, target_domain=choice.target_domain, seed=choice.seed)
    return dataset, choice.prompts.prompts(dataset.class_names)


def data_table(dataset: DomainDataset, prompts: Sequence[Sequence[str]], *, most: int | None = None) -> Table:
    """Return the number of images by class and domain, and the first prompt of each class; so many classes at most."""
    from vl2v_client.data.inspection import count_images

    counts = count_images(dataset)
    rows = [
        (name, *(f"{counts[domain][name]:,}" for domain in dataset.domains), texts[0])
        for name, texts in zip(dataset.class_names, prompts, strict=True)
    ]
    shown = rows if most is None else rows[:most]
    if len(rows) > len(shown):
        shown.append((f"and {len(rows) - len(shown):,} more", *("..." for _ in dataset.domains), "`check` shows all"))
    shown.append(("all", *(f"{sum(counts[domain].values()):,}" for domain in dataset.domains), ""))
    templates = len(prompts[0])
    asked = "asked as" if templates == 1 else f"asked as, and in {templates - 1} more templates"
    return plain_table("class", *(Column(name, justify="right") for name in dataset.domains), asked, rows=shown)


def data_json(dataset: DomainDataset, prompts: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return the same as JSON values."""
    from vl2v_client.data.inspection import count_images

    return {
        "counts": count_images(dataset),
        "prompts": dict(zip(dataset.class_names, prompts, strict=True)),
    }


def tell_ignored(config: RunConfig) -> None:
    """Say which pictures of a run's data set are not read, if there are any."""
    from vl2v_client.data import inspection

    inspection.tell_ignored(config.data.root, notify)


def _lists(root: Path, found: Inspection) -> list[Table]:
    from vl2v_client.data.inspection import names_below

    lists = [
        ("images that cannot be used", list(found.broken)),
        (
            "kinds of files that are ignored, as no images by their names",
            [
                f"{len(paths):,} {suffix or 'without a suffix'}: {', '.join(names_below(root, paths[:3]))}"
                f"{', ...' if len(paths) > 3 else ''}"
                for suffix, paths in found.ignored.items()
            ],
        ),
        ("files that are there more than once", [" = ".join(names_below(root, group)) for group in found.duplicates]),
    ]
    return [_list(f"{what}: {len(lines):,}", lines) for what, lines in lists if lines]


def _list(heading: str, lines: Sequence[str]) -> Table:
    more = [f"and {len(lines) - _FILES_SHOWN:,} more: --json names all"] if len(lines) > _FILES_SHOWN else []
    return plain_table(heading, rows=[(line,) for line in (*lines[:_FILES_SHOWN], *more)])
