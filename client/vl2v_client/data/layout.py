"""Folders that are easily taken for another level of a data set, each refused with what to give instead."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from vl2v_client.core.errors import DataError

PARTS = frozenset({"train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval", "holdout"})
"""Names of the parts of a split, which are no domains and no classes."""

_SHOWN = 3


def refuse_parts(root: Path, names: Sequence[str], taken_for: str) -> None:
    """Refuse folders that are the parts of one split, where domains or classes are expected.

    Raises:
        DataError: Two names or more are such parts.
    """
    parts = [name for name in names if name.lower() in PARTS]
    if len(parts) >= 2:
        first = next((name for name in parts if name.lower().startswith("train")), parts[0])
        raise DataError(
            f"{root} holds {' and '.join(parts)}, which are parts of one data set and would be taken for "
            f"{taken_for}: give {root / first} (a fifth of it is held out anyway), or put their images together"
        )


def refuse_one_level_too_high(root: Path, inside: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
    """Refuse a folder whose classes hold, each, the same folders: these are the classes, one level further down.

    Args:
        root: The folder that was given.
        inside: Of each folder in it, the folders of that and what folders they hold, if they hold no image.

    Raises:
        DataError: Two classes or more share two folders or more.
    """
    for domain, classes in inside.items():
        shared = set.intersection(*map(set, classes.values())) if len(classes) >= 2 else set()
        if len(shared) < 2:
            continue
        first = next(iter(classes))
        raise DataError(
            f"{root} looks one level too high: {', '.join(map(repr, list(classes)[:_SHOWN]))} in {domain!r} would be "
            f'classes, as in "a photo of a {first}", but each of them holds the folders '
            f"{', '.join(sorted(shared)[:_SHOWN])}{', ...' if len(shared) > _SHOWN else ''}: give {root / domain}"
        )


def refuse_one_class(root: Path, names: Sequence[str]) -> None:
    """Refuse a data set of one class: every student is right about all of it.

    Raises:
        DataError: There is one class.
    """
    if len(names) == 1:
        raise DataError(
            f"{root} has one class only, {names[0]!r}, and a single class reports 100 % whatever is learnt: add "
            f"images of another class, or give the folder above, {root.absolute().parent}"
        )
