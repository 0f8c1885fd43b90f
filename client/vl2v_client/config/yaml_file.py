"""A YAML file of options by group: what is wrong in it is named with its line, and the nearest right word."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic_core import ErrorDetails

from vl2v_client.core.errors import UsageError

Groups = Mapping[str, Mapping[str, object]]
"""Group: its options, each with its declaration."""

_WRONG = "extra_forbidden"  # pydantic's word for a name that is none


def read_groups(path: Path, groups: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read the options that a file names, by group.

    Raises:
        UsageError: The file cannot be read, or is no mapping of groups to options.
    """
    import yaml  # most runs are flags alone

    try:
        read = yaml.safe_load(path.read_text()) or {}
    except yaml.MarkedYAMLError as error:
        mark, what = error.problem_mark, error.problem or "it is no YAML"
        place = "" if mark is None else f", line {mark.line + 1}"
        raise UsageError(f"{path}{place} cannot be read as YAML ({what}): give a file of groups and options") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): give a file of groups and options") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path} cannot be read as YAML ({error}): give a file of groups and options") from error
    if not isinstance(read, dict) or not all(isinstance(group, dict) for group in read.values()):
        raise UsageError(f"{path} must hold the groups {', '.join(groups)}, each with its options below it")
    return read


def name_faults(path: Path, errors: Iterable[ErrorDetails], groups: Groups) -> str:
    """Return what pydantic found wrong, each fault with its line and, for a name that is none, the nearest one."""
    lines = _lines_of(path)

    def name(error: ErrorDetails) -> str:
        group, option, *_ = (*map(str, error["loc"]), "", "")
        line = lines.get((group, option)) or lines.get((group, ""))
        place = "" if line is None else f"line {line}: "
        if error["type"] == _WRONG and not option:
            return f"{place}there is no group {group!r}{_nearest(group, groups)}; groups are {', '.join(groups)}"
        if error["type"] == _WRONG:
            known = groups[group]
            elsewhere = next((other for other, options in groups.items() if option in options), None)
            hint = f"; it belongs to the group {elsewhere!r}" if elsewhere else _nearest(option, known)
            return f"{place}the group {group!r} has no option {option!r}{hint}"
        reason = error["msg"][:1].lower() + error["msg"][1:]
        return f"{place}the option {option!r} of the group {group!r} is {error['input']!r}: {reason}"

    return f"{path}: " + "; ".join(map(name, errors))


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _lines_of(path: Path) -> dict[tuple[str, str], int]:
    """Return the line of each group, `(group, "")`, and of each option, `(group, option)`, counted from 1."""
    import yaml

    root, found = yaml.compose(path.read_text(), yaml.SafeLoader), {}
    for group, options in root.value if isinstance(root, yaml.MappingNode) else ():
        found[str(group.value), ""] = group.start_mark.line + 1
        for option, _ in options.value if isinstance(options, yaml.MappingNode) else ():
            found[str(group.value), str(option.value)] = option.start_mark.line + 1
    return found
