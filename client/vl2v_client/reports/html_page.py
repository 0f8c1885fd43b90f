"""Pages that need nothing but themselves: HTML from the templates beside, with its style inside and no script.

Every text is written out by `vl2v_contract.texts.printable` and escaped here, whoever it comes from; only what is
markup already, a chart or the style sheet, goes in as it is. The page's own policy allows its style sheet, the
pictures within it, and nothing else.
"""

import base64
import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from vl2v_contract.texts import printable

PAGE_FILE = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"


def render_page(template: str, title: str, **values: Any) -> str:
    """Return a page from a template of this room, filled with values."""
    style = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"
    made = {"title": title, "policy": policy, "version": metadata.version("vl2v")}
    made["style"] = Markup(style)  # nosec B704 # the style sheet of this room
    return _environment().get_template(template).render(**made, **values)


def picture(jpeg: bytes) -> str:
    """Return the address of a picture that the page holds itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_written_out,
    )


def _written_out(value: Any) -> Any:
    """Return a text from outside with what steers written out; jinja escapes it next."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return printable(value).replace(" %", "\u00a0%")  # no line ends between a number and its unit
