"""Debian's Chromium, driven by Playwright; a test that needs them is skipped, with the reason, where one is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

OpenPage = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One browser for the tests of a module: while it runs, no test can have an event loop of its own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`: `make test-browser`")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs Chromium: `apt install chromium`")
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """A function that opens a page of its own session; whatever a page complains of fails the test at its end."""
    complaints: list[str] = []
    contexts = []

    def open_one(*, width: int = 1280, scheme: str = "light") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        return page

    yield open_one
    for context in contexts:
        context.close()
    expected = "the server responded with a status of 4"  # what a refusal is
    assert [one for one in complaints if expected not in one] == []


@pytest.fixture
def check_page(request: pytest.FixtureRequest) -> Callable[[Any, str], None]:
    """A function that checks a page as it is shown: axe finds nothing serious, and nothing is wider than the window.

    With `--screenshots FOLDER` it keeps a picture under the name that it is given.
    """
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="needs the extra `browser`: `make test-browser`"
    ).Axe()
    folder = request.config.getoption("--screenshots")

    def check(page: Any, name: str) -> None:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png", full_page="docs" not in name)
        found = axe.run(page).response["violations"]
        serious = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in serious] == [], name
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), f"{name} is too wide"

    return check
