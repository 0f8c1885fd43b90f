"""The pages of reports in a browser: nothing that their own policy refuses, readable on a phone, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.client.report_pages import comparison_of_two, page_of_classes, whole_page

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


PAPER_WIDTH = 673  # CSS pixels between the margins of A4


@pytest.mark.parametrize("make", [*PAGES.values(), lambda: page_of_classes(40).to_html()])
def test_a_report_prints_whole_unfolded_and_in_light_colours(
    make: Callable[[], str], open_page: Callable[..., Any], tmp_path: Path
) -> None:
    file = tmp_path / "report.html"
    file.write_text(make())
    page = open_page(width=PAPER_WIDTH, scheme="dark")
    page.emulate_media(media="print", color_scheme="dark")
    page.goto(file.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "it is wider than the paper"
    folded = page.locator("details table")
    assert folded.count() == 0 or min(one["height"] for one in map(_box, folded.all())) > 0, "a table is folded"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def _box(locator: Any) -> dict[str, float]:
    return dict(locator.bounding_box() or {"height": 0.0})
