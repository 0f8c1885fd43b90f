"""Charts as inline SVG: elements whose texts are escaped, colours from the page's style sheet, a title and a text each.

Own code, since a chart here is thirty elements: a plotting library brings its own fonts and colours, which follow
neither the dark page nor the print, and is tens of megabytes. No script: what a pointer shows is a `<title>`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from vl2v_client.evaluation.intervals import Estimate
from vl2v_client.reports.pages import MINUS, interval, percent
from vl2v_contract.texts import printable

WIDTH = 440
"""Units across; drawn at 360 to 560 pixels, so that a text of 12 units stays legible on a phone."""
ROW = 30
LETTER = 7.2
"""Width of a letter of 12 units, rather a wide one."""
_TICKS = 5

Point = tuple[float, float]


class Svg:
    """A drawing that grows by elements.

    Args:
        name: Letters and digits that no other drawing of the page has.
        title: What it shows.
        text: What there is to see, for who cannot.
        height: Units, as `WIDTH`.
        width: Units.
    """

    def __init__(self, name: str, title: str, text: str, height: float, width: float = WIDTH) -> None:
        self._parts = [
            Markup(
                '<svg class="chart" viewBox="0 0 {} {}" role="img" aria-labelledby="{}-t {}-d">'
                '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
            ).format(_number(width), _number(height), name, name, name, printable(title), name, printable(text))
        ]

    def add(self, element: str, /, text: str | None = None, *, hint: str = "", **attributes: float | str) -> None:
        """Add an element; `_` in the names of attributes is `-`, and `class_` is `class`.

        Args:
            element: Its name, such as `line`.
            text: What it holds.
            hint: What a pointer shows beside it.
            attributes: Numbers are rounded to two places.
        """
        pairs = Markup("").join(
            Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _number(value))
            for key, value in attributes.items()
        )
        inside = Markup("<title>{}</title>").format(printable(hint)) if hint else Markup("")
        inside += escape(printable(text or ""))
        self._parts.append(Markup("<{}{}>{}</{}>").format(element, pairs, inside, element))

    def path(self, points: Sequence[Point], *, closed: bool = False, class_: str) -> None:
        """Add straight lines through points."""
        steps = " ".join(f"{'L' if place else 'M'}{x:.2f} {y:.2f}" for place, (x, y) in enumerate(points))
        self.add("path", d=steps + (" Z" if closed else ""), class_=class_)

    def markup(self) -> Markup:
        """Return the whole."""
        return Markup("").join([*self._parts, Markup("</svg>")])


@dataclass(frozen=True, slots=True)
class Axis:
    """A scale from values to units.

    Attributes:
        low: Value at `start`.
        high: Value at `end`.
        start: Units.
        end: Units; below `start` for an axis that rises.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        return self.start + (value - self.low) / ((self.high - self.low) or 1) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values on it, about five."""
        span = self.high - self.low
        if span <= 0:
            return [self.low]
        power = 10.0 ** math.floor(math.log10(span / _TICKS))
        step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if span / (power * factor) <= _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [place * step for place in range(first, math.floor(self.high / step + 1e-9) + 1)]


def shares(axis: Axis) -> list[tuple[float, str]]:
    """Return ticks of an axis of shares as percentages."""
    return [(value, f"{100 * value:g} %") for value in axis.ticks()]


def plain(axis: Axis) -> list[tuple[float, str]]:
    """Return ticks of an axis as plain numbers."""
    ticks = axis.ticks()
    places = next((one for one in range(9) if all(abs(round(value, one) - value) < 1e-9 for value in ticks)), 9)
    return [(value, f"{value:,.{places}f}".replace("-", MINUS)) for value in ticks]


def grid_x(svg: Svg, axis: Axis, ticks: Sequence[tuple[float, str]], *, top: float, bottom: float) -> None:
    """Draw vertical grid lines, and their values below."""
    for value, label in ticks:
        svg.add("line", x1=axis(value), x2=axis(value), y1=top, y2=bottom, class_="grid")
        svg.add("text", label, x=axis(value), y=bottom + 16, class_="tick middle")


def grid_y(svg: Svg, axis: Axis, ticks: Sequence[tuple[float, str]], *, left: float, right: float) -> None:
    """Draw horizontal grid lines, and their values on the left."""
    for value, label in ticks:
        svg.add("line", x1=left, x2=right, y1=axis(value), y2=axis(value), class_="grid")
        svg.add("text", label, x=left - 6, y=axis(value) + 4, class_="tick end")


@dataclass(frozen=True, slots=True)
class Dot:
    """A share with its interval, in a row of its own.

    Attributes:
        label: Name of the row.
        kind: Class of its colour: `main`, `reference` or `other`.
    """

    label: str
    share: Estimate
    kind: str = "other"


def dots(name: str, title: str, rows: Sequence[Dot]) -> Markup:
    """Draw a row for each share: a dot, its interval as a line, and its value."""
    text = "; ".join(f"{row.label} {percent(row.share.value)}" for row in rows)
    left = 12 + min(150.0, LETTER * max(len(row.label) for row in rows))
    bottom = 8 + ROW * len(rows)
    svg, axis = Svg(name, title, text, bottom + 26), Axis(0, 1, left, WIDTH - 62)
    grid_x(svg, axis, [(value / 4, f"{25 * value} %") for value in range(5)], top=8, bottom=bottom)
    for place, row in enumerate(rows):
        middle, share = 8 + ROW * (place + 0.5), row.share
        hint = f"{row.label}: {percent(share.value)}, {interval(share)}"
        svg.add(
            "text", shortened(row.label, 22), x=left - 8, y=middle + 4, class_=f"label end {row.kind}", hint=row.label
        )
        svg.add("line", x1=axis(share.low), x2=axis(share.high), y1=middle, y2=middle, class_=f"whisker {row.kind}")
        svg.add("circle", cx=axis(share.value), cy=middle, r=5.5, class_=f"dot {row.kind}", hint=hint)
        svg.add("text", percent(share.value), x=WIDTH, y=middle + 4, class_=f"value end {row.kind}")
    return svg.markup()


def shortened(text: str, letters: int) -> str:
    """Return a text of at most so many letters, with an ellipsis if it was longer."""
    return text if len(text) <= letters else text[: letters - 1] + "\u2026"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
