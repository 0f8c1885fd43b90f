"""The chart of accuracy by queries: what more of them were worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vl2v_client.evaluation.intervals import Estimate
from vl2v_client.reports.charts import WIDTH, Axis, Svg, grid_x, grid_y, plain, shares

_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, WIDTH - 14.0, 12.0, 230.0
_LINEAR_UP_TO = 20


@dataclass(frozen=True, slots=True)
class QueryPoint:
    """One student: the queries that it learnt from, and its accuracy, 0 to 1."""

    queries: int
    accuracy: Estimate
    name: str


def query_curve(name: str, title: str, points: Sequence[QueryPoint]) -> Markup:
    """Draw accuracy with its interval by queries, and a line through the means of equal numbers of queries.

    The axis is logarithmic where the numbers span more than 20 times, or begin at none.
    """
    counts = sorted({one.queries for one in points})
    is_log = counts[0] == 0 or counts[-1] > _LINEAR_UP_TO * counts[0]
    means = [(count, _mean(points, count)) for count in counts]
    text = "; ".join(f"{count:,} queries: {100 * mean:.1f} %" for count, mean in means)
    svg = Svg(name, f"Accuracy by queries, {title}", text, _BOTTOM + 40)
    low, high = min(one.accuracy.low for one in points), max(one.accuracy.high for one in points)
    y = Axis(max(0.0, low - 0.02), min(1.0, high + 0.02), _BOTTOM, _TOP)
    grid_y(svg, y, shares(y), left=_LEFT, right=_RIGHT)

    def place(queries: float) -> float:
        return math.log10(1 + queries) if is_log else queries

    x = Axis(place(counts[0]), place(counts[-1]), _LEFT + 14, _RIGHT - 14)
    if is_log:
        powers = [0, *(10**power for power in range(7))]
        ticks = [(place(one), f"{one:,}") for one in powers if x.low <= place(one) <= x.high and (one != 1)]
    else:
        ticks = plain(x)
    grid_x(svg, x, ticks, top=_TOP, bottom=_BOTTOM)
    svg.add("text", "queries", x=_RIGHT, y=_BOTTOM + 34, class_="tick end")
    svg.path([(x(place(count)), y(mean)) for count, mean in means], class_="line main faint")
    for one in points:
        middle, share = x(place(one.queries)), one.accuracy
        hint = f"{one.name}: {one.queries:,} queries, {100 * share.value:.1f} %"
        svg.add("line", x1=middle, x2=middle, y1=y(share.low), y2=y(share.high), class_="whisker main thin")
        svg.add("circle", cx=middle, cy=y(share.value), r=5, class_="dot main", hint=hint)
    return svg.markup()


def _mean(points: Sequence[QueryPoint], queries: int) -> float:
    values = [one.accuracy.value for one in points if one.queries == queries]
    return sum(values) / len(values)
