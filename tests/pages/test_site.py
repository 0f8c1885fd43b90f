"""The documentation site: no warning, every link and anchor leads somewhere, nothing comes from elsewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

for _needed in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(_needed, reason="the site needs the extra `docs`: `make test-docs` installs it")

ROOT = Path(__file__).parents[2]
_LOADED = {"link", "script", "img", "iframe", "source", "video", "audio", "embed", "object"}
"""Elements whose address a browser loads by itself."""


class Page(HTMLParser):
    """The addresses of a page: those that a browser loads, those that a reader follows, and its anchors."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.followed: set[str] = set()
        self.anchors: set[str] = {"", "top"}
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.anchors |= {named[name] for name in ("id", "name") if name in named}
        for name in ("href", "src", "data"):
            if name in named and named.get("rel") not in ("search", "index", "next", "prev", "canonical"):
                (self.loaded if tag in _LOADED else self.followed).add(named[name])


@pytest.fixture(scope="module")
def site(minutes: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-b", "html", "-c", "docs", "."]
    done = subprocess.run([*words, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-6000:]
    assert done.stderr == ""
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {file: Page(file) for file in site.rglob("*.html")}


def test_every_link_leads_to_a_file_and_an_anchor(site: Path, pages: dict[Path, Page]) -> None:
    dead: dict[str, list[str]] = defaultdict(list)
    for file, page in pages.items():
        for address in page.followed | page.loaded:
            parts = urlsplit(address)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            known = pages[target].anchors if target in pages else {""}
            if not target.is_file() or (target in pages and unquote(parts.fragment) not in known):
                dead[str(file.relative_to(site))].append(address)
    assert dead == {}


def test_a_reader_s_browser_loads_nothing_from_elsewhere(site: Path, pages: dict[Path, Page]) -> None:
    outside = {address for page in pages.values() for address in page.loaded if re.match(r"(https?:)?//", address)}
    assert outside == set()
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*['\"]?(?:https?:)?//[^)]*", style.read_text()) == []


def test_the_reference_has_every_option_command_setting_and_route(site: Path) -> None:
    from openapi_page import document

    from support.help_screens import commands_of
    from vl2v_client.cli.app import app as client_app
    from vl2v_client.cli.options import RUN_OPTIONS, flag_name
    from vl2v_vendor.cli.app import app as vendor_app
    from vl2v_vendor.settings import Settings

    def text(name: str) -> str:
        return re.sub(r"<[^>]+>", "", (site / "docs" / "reference" / f"{name}.html").read_text())

    flags = {flag_name(section.name, option) for section in RUN_OPTIONS for option in section.fields}
    assert {flag for flag in flags if flag not in text("options")} == set()
    assert {name for name in Settings.model_fields if name not in text("settings")} == set()
    assert {path for path in document()["paths"] if path not in text("http")} == set()
    for program, app in (("vl2v-client", client_app), ("vl2v-vendor", vendor_app)):
        runs = {
            words for words in commands_of(app) if not any(other.startswith(f"{words} ") for other in commands_of(app))
        }
        assert {words for words in runs if f"{program} {words}" not in text("commands")} == set()
    assert "<!-- made from the code" not in "".join(page.read_text() for page in site.rglob("*.html"))


def test_the_site_s_own_address_leads_to_the_first_page(site: Path) -> None:
    assert "url=docs/index.html" in (site / "index.html").read_text()
