"""The pages of reports in a browser: nothing that their own policy refuses, readable on a phone, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.client.report_pages import comparison_of_two, whole_page

PAGES = {"run": lambda: whole_page().to_html(), "comparison": comparison_of_two}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_report_is_readable(
    name: str,
    width: int,
    scheme: str,
    open_page: Callable[..., Any],
    check_page: Callable[[Any, str], None],
    tmp_path: Path,
) -> None:
    file = tmp_path / "report.html"
    file.write_text(PAGES[name]())
    page = open_page(width=width, scheme=scheme)
    page.goto(file.as_uri())
    for summary in page.locator("summary").all():
        summary.click()
    check_page(page, f"report-{name}-{width}-{scheme}")
    assert page.evaluate("getComputedStyle(document.body).fontVariantNumeric") == "tabular-nums", "its style is allowed"
    pictures = page.locator("img")
    assert all(picture.evaluate("image => image.naturalWidth") > 0 for picture in pictures.all())
