"""Settings chosen without peeking: for each target, by leaving out each of its sources in turn.

No picture of a target is read when its setting is chosen: the data set of its choice has the source domains alone. Each
of them is held out once, and a setting's score is the mean accuracy on them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from accuracy_arms import Arm
from accuracy_runs import Cell, Outcome


def source_cells(home: Path, domains: Sequence[str], arms: Sequence[Arm], seeds: range) -> Iterator[Cell]:
    """Every run that chooses a setting: `Cell.target` is the source that is held out, and the row names the target."""
    for seed in seeds:
        for target in domains:
            for held_out in (domain for domain in domains if domain != target):
                for arm in arms:
                    own = replace(arm, row=row_of(arm, target), erm_row=None)
                    yield Cell(own, home / f"without-{target}", held_out, seed, with_erm=False)


def row_of(arm: Arm, target: str) -> str:
    """The name of an arm's runs that choose for a target."""
    return f"{arm.row}, without {target}"


def link_sources(data: Path, domains: Sequence[str], home: Path) -> None:
    """Make, for each domain, a data set of the others: of hard links where the disk allows them, else of copies."""
    for target in domains:
        for domain in (domain for domain in domains if domain != target):
            for path in filter(Path.is_file, sorted((data / domain).rglob("*"))):
                place = home / f"without-{target}" / path.relative_to(data)
                if not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    try:
                        os.link(path, place)
                    except OSError:
                        shutil.copy2(path, place)


def choices_of(outcomes: Sequence[Outcome], targets: Sequence[str], arms: Sequence[Arm]) -> list[dict[str, object]]:
    """A row per setting: its score for each target, in percent, and for which targets it is the best."""
    scores = {
        (arm.row, target): 100 * mean(each.accuracy for each in outcomes if each.row == row_of(arm, target))
        for arm in arms
        for target in targets
    }
    best = {target: max(arms, key=lambda arm, target=target: scores[arm.row, target]).row for target in targets}
    return [
        {
            "setting": arm.row,
            "options": " ".join(arm.options),
            **{f"for {target}": round(scores[arm.row, target], 1) for target in targets},
            "best for": ", ".join(target for target in targets if best[target] == arm.row) or "-",
        }
        for arm in arms
    ]


def as_sources_choose(outcomes: Sequence[Outcome], settings: Mapping[str, Any], name: str) -> list[Outcome]:
    """Under one name, for each target the outcomes of the setting that a result of `choices_of` calls best for it.

    Where a target has none, there is no such row.
    """
    best = {target: row["setting"] for row in settings["rows"] for target in row["best for"].split(", ")}
    found = [replace(each, row=name, note=each.row) for each in outcomes if best.get(each.target) == each.row]
    return found if {each.target for each in found} == {each.target for each in outcomes} else []
