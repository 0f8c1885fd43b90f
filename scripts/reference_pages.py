"""What the reference pages of the documentation take from the code; `docs/conf.py` puts it in when the site is built.

A page holds the comment `<!-- made from the code: NAME -->` where the text of `MAKERS[NAME]` comes. The text is
Markdown, whose headings begin at the second level. `<!-- pages below: PATTERN -->` puts pages below one in the table of
contents; both are comments, since a repository shows such a page as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from cyclopts import App
from openapi_page import http
from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from python_page import notebook, python

from vl2v_client.cli.app import app as client_app
from vl2v_client.cli.options import RUN_OPTIONS, flag_name
from vl2v_client.config.run import RunConfig
from vl2v_vendor.cli.app import app as vendor_app
from vl2v_vendor.settings import ENV_PREFIX, Settings

COMMENT = re.compile(r"<!-- made from the code: ([\w-]+) -->")
PAGES_BELOW = re.compile(r"<!-- pages below: (\S+) -->")


def fill(_app: object, _page: str, source: list[str]) -> None:
    """Put the text from the code into a page; Sphinx calls it with each page that it has read."""
    source[0] = COMMENT.sub(lambda found: MAKERS[found.group(1)](), source[0])
    source[0] = PAGES_BELOW.sub(r":::{toctree}\n:hidden:\n:glob:\n\n\1\n:::", source[0])


def write_first_page(app: Any, fault: Exception | None) -> None:
    """Lead the site's own address to the page that the table of contents begins with."""
    if fault is None and app.builder.format == "html":
        first = app.builder.get_target_uri(app.config.root_doc)
        page = f'<!doctype html><title>VL2V</title><meta http-equiv="refresh" content="0; url={first}">\n'
        Path(app.outdir, "index.html").write_text(page + f'<a href="{first}">VL2V</a>\n')


def options() -> str:
    """Describe the options of a run by group: flag, key of a file, default, values and meaning."""
    return "\n\n".join(
        f"## `{section.name}`\n\n{_groups_say()[section.name]}\n\n"
        + table(
            ("flag", f"key in `{section.name}`", "default", "values", "meaning"),
            (
                (
                    f"`{flag_name(section.name, name)}`",
                    f"`{name}`",
                    _default(info),
                    _values(info.annotation, info.metadata),
                    info.description or "",
                )
                for name, info in section.fields.items()
            ),
        )
        for section in RUN_OPTIONS
    )


def settings() -> str:
    """Describe the settings of the vendor: name, variable, default and values."""
    rows = (
        (
            f"`{name}`",
            f"`{ENV_PREFIX}{name.upper()}`",
            "`$XDG_DATA_HOME/vl2v`" if name == "data_dir" else _default(info),
            _values(info.annotation, info.metadata),
        )
        for name, info in Settings.model_fields.items()
    )
    return table(("setting", "variable", "default", "values"), rows)


def commands() -> str:
    """Describe every command of both programs."""
    return "\n\n".join(
        f"## `{program}`\n\n{_help(app)}\n\n" + "\n\n".join(_commands_below(app, app, program))
        for program, app in (("vl2v-client", client_app), ("vl2v-vendor", vendor_app))
    )


def _groups_say() -> Mapping[str, str]:
    return {name: (info.annotation.__doc__ or "") for name, info in RunConfig.model_fields.items() if info.annotation}


def _commands_below(root: App, app: App, words: str) -> Iterator[str]:
    for name in app:
        if name.startswith("-"):
            continue
        command, line = app[name], f"{words} {name}"
        if command.default_command is not None:
            yield f"### `{line}`\n\n{_help(command)}\n\n{_arguments(root, command)}"
        yield from _commands_below(root, command, line)


def _help(app: App) -> str:
    return "\n\n".join(text for text in (app.help, app.help_epilogue) if text)


def _arguments(root: App, command: App) -> str:
    of_a_run = {f"{section.name}_{name}" for section in RUN_OPTIONS for name in section.fields}
    rows, shared = [], set()
    for argument in command.assemble_argument_collection(default_parameter=root.default_parameter):
        names = ", ".join(f"`{name}`" for name in argument.names)
        if argument.field_info.name in of_a_run:
            shared.add(argument.field_info.name)
            continue
        info, parameter = argument.field_info, argument.parameter
        variables = parameter.env_var or ()
        meaning = " ".join([parameter.help or "", *(f"(`{one}`)" for one in variables)])
        default = "required" if info.required else _shown(info.default)
        rows.append((names, default, _values(argument.hint, ()), meaning))
    parts = [table(("argument", "default", "values", "meaning"), rows)] if rows else []
    if shared:
        parts.append(f"And of the [options of a run](options.md): {'; '.join(_shares(shared))}.")
    return "\n\n".join(parts) or "It takes no option."


def _shares(names: Collection[str]) -> Iterator[str]:
    """Yield what a command takes of each group of a run's options, by what is shorter to say."""
    for section in RUN_OPTIONS:
        taken = [option for option in section.fields if f"{section.name}_{option}" in names]
        missing = [option for option in section.fields if option not in taken]
        listed = ", ".join(f"`{flag_name(section.name, option)}`" for option in min(taken, missing, key=len))
        if taken and len(missing) < len(taken):
            yield f"`{section.name}`" + (f" without {listed}" if missing else "")
        elif taken:
            yield f"{listed} of `{section.name}`"


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    return _shown(info.default)


def _shown(value: Any) -> str:
    if value is None or value is PydanticUndefined or value == ():
        return ""
    if value is False or value is True:
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


_NAMES = {bool: "switch", int: "whole number", float: "number", Path: "path", **dict.fromkeys((str, SecretStr), "text")}


def _values(annotation: Any, metadata: Sequence[Any]) -> str:
    """Describe what an annotation allows, such as `whole number, at least 1`."""
    kind = _kind(annotation)
    limits = ", ".join(_limit(one) for one in metadata if isinstance(one, Ge | Gt | Le | Lt))
    return f"{kind}, {limits}" if limits else kind


def _kind(annotation: Any) -> str:
    if annotation in _NAMES:
        return _NAMES[annotation]
    if get_origin(annotation) is Annotated:
        return _kind(get_args(annotation)[0])
    inner = [one for one in get_args(annotation) if one not in (type(None), Ellipsis)]
    if get_origin(annotation) is Literal:
        return ", ".join(f"`{one}`" for one in inner)
    kinds = list(dict.fromkeys(map(_kind, inner)))
    if get_origin(annotation) is tuple:
        repeated = Ellipsis in get_args(annotation)
        return f"{' or '.join(kinds)}; repeatable" if repeated else f"{len(inner)} times {' or '.join(kinds)}"
    return " or ".join(kinds) if inner else getattr(annotation, "__name__", "").lower()


def _limit(one: Any) -> str:
    for kind, word in ((Ge, "at least"), (Gt, "above"), (Le, "at most"), (Lt, "below")):
        if isinstance(one, kind):
            return f"{word} {getattr(one, kind.__name__.lower())}"
    return ""


def table(heads: Sequence[str], rows: Iterator[Sequence[str]] | Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


MAKERS: Mapping[str, Callable[[], str]] = {
    "options": options,
    "settings": settings,
    "commands": commands,
    "http": http,
    "python": python,
    "notebook": notebook,
}
