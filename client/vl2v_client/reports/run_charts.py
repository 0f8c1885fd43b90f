"""The charts of a run's page: training curves, reliability diagram, confusion heat map."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from vl2v_client.evaluation.intervals import accuracy_interval
from vl2v_client.evaluation.mistakes import ReliabilityBin
from vl2v_client.reports.charts import LETTER, WIDTH, Axis, Point, Svg, grid_x, grid_y, plain, shares, shortened

_LEFT, _RIGHT, _TOP = 58.0, WIDTH - 12.0, 10.0
_CURVE_BOTTOM = 210.0
_NUMBERED_CLASSES = 12
_MOST_CLASSES = 40
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The training loss at a step, and its distance from the floor, which no student can go below."""

    step: int
    loss: float
    gap: float


@dataclass(frozen=True, slots=True)
class EvaluationPoint:
    """Source validation at a step: accuracy, 0 to 1, and cross-entropy."""

    step: int
    accuracy: float
    loss: float


@dataclass(frozen=True, slots=True)
class StageCurve:
    """How one stage went.

    Attributes:
        averaged: First and last step of the weights that were averaged, if the run says so.
    """

    name: str
    points: tuple[CurvePoint, ...]
    evaluations: tuple[EvaluationPoint, ...]
    averaged: tuple[int, int] | None = None


def loss_chart(name: str, curve: StageCurve) -> Markup:
    """Draw the loss of a stage over its floor; the area between them is what is left to learn."""
    points = _thinned(curve.points)
    losses, floors = [one.loss for one in points], [one.loss - one.gap for one in points]
    last = points[-1]
    text = (
        f"The loss goes from {losses[0]:.4f} at step {points[0].step:,} to {last.loss:.4f} at step {last.step:,}, "
        f"{last.gap:.4f} above its floor."
    )
    svg = Svg(name, f"Loss of stage {curve.name}", text, _CURVE_BOTTOM + 40)
    x = Axis(0, max(1, last.step), _LEFT, _RIGHT)
    low, high = min(floors), max(losses)
    margin = 0.06 * ((high - low) or abs(high) or 1)
    y = Axis(low - margin, high + margin, _CURVE_BOTTOM, _TOP)
    _frame(svg, x, y, plain(y))
    over = [(x(one.step), y(one.loss)) for one in points]
    under = [(x(one.step), y(one.loss - one.gap)) for one in points]
    svg.path([*over, *reversed(under)], closed=True, class_="gap")
    svg.path(under, class_="line reference dashed")
    svg.path(over, class_="line main")
    svg.add("circle", cx=over[-1][0], cy=over[-1][1], r=4, class_="dot main", hint=f"loss {last.loss:.4f}")
    return svg.markup()


def validation_chart(name: str, curve: StageCurve) -> Markup:
    """Draw the accuracy on source validation along a stage, and which steps were averaged."""
    points = curve.evaluations
    best = max(points, key=lambda one: one.accuracy)
    text = (
        f"Accuracy on source validation goes from {100 * points[0].accuracy:.1f} % to "
        f"{100 * points[-1].accuracy:.1f} %; its highest is {100 * best.accuracy:.1f} % at step {best.step:,}."
    )
    svg = Svg(name, f"Accuracy of stage {curve.name} on source validation", text, _CURVE_BOTTOM + 40)
    x = Axis(0, max(1, points[-1].step), _LEFT, _RIGHT)
    low, high = min(one.accuracy for one in points), best.accuracy
    margin = max(0.02, 0.1 * (high - low))
    y = Axis(max(0.0, low - margin), min(1.0, high + margin), _CURVE_BOTTOM, _TOP)
    if curve.averaged is not None:
        first, last = (x(min(step + 1, x.high)) for step in curve.averaged)
        hint = f"SWAD averages steps {curve.averaged[0]:,} to {curve.averaged[1]:,}"
        svg.add(
            "rect", x=first, y=_TOP, width=max(1.0, last - first), height=_CURVE_BOTTOM - _TOP, class_="band", hint=hint
        )
    _frame(svg, x, y, shares(y))
    svg.path([(x(one.step), y(one.accuracy)) for one in points], class_="line main")
    for one in points if len(points) <= 40 else (best,):
        hint = f"step {one.step:,}: {100 * one.accuracy:.1f} %"
        kind = "dot main" if one is best else "dot main hollow"
        svg.add("circle", cx=x(one.step), cy=y(one.accuracy), r=4 if one is best else 3, class_=kind, hint=hint)
    return svg.markup()


def _frame(svg: Svg, x: Axis, y: Axis, ticks: Sequence[tuple[float, str]]) -> None:
    grid_y(svg, y, ticks, left=_LEFT, right=_RIGHT)
    for value, label in plain(x):
        svg.add("text", label, x=x(value), y=_CURVE_BOTTOM + 17, class_="tick middle")
    svg.add("line", x1=_LEFT, x2=_RIGHT, y1=_CURVE_BOTTOM, y2=_CURVE_BOTTOM, class_="axis")
    svg.add("text", "step", x=_RIGHT, y=_CURVE_BOTTOM + 34, class_="tick end")


def _thinned(points: Sequence[CurvePoint]) -> list[CurvePoint]:
    """Return at most so many points, each the mean of neighbours."""
    size = math.ceil(len(points) / _MOST_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        CurvePoint(
            group[-1].step, sum(one.loss for one in group) / len(group), sum(one.gap for one in group) / len(group)
        )
        for group in groups
    ]


def reliability_chart(name: str, bins: Sequence[ReliabilityBin]) -> Markup:
    """Draw the accuracy of each range of confidence against its mean confidence, and how many images it holds."""
    bottom, counts_top, counts_bottom = 250.0, 290.0, 330.0
    images = sum(one.images for one in bins)
    gap = sum(one.images * (one.confidence - one.accuracy) for one in bins) / images
    more = "more" if gap >= 0 else "less"
    text = f"On {images:,} images, mean confidence is {100 * abs(gap):.1f} points {more} than accuracy."
    svg = Svg(name, "Reliability", text, counts_bottom + 22)
    x, y = Axis(0, 1, _LEFT, _RIGHT), Axis(0, 1, bottom, _TOP)
    ticks = [(place / 4, f"{25 * place} %") for place in range(5)]
    grid_y(svg, y, ticks, left=_LEFT, right=_RIGHT)
    grid_x(svg, x, ticks, top=_TOP, bottom=bottom)
    svg.path([(x(0), y(0)), (x(1), y(1))], class_="line reference dashed")
    seen: list[Point] = []
    for one in bins:
        share = accuracy_interval(one.accuracy, one.images)
        place = x(one.confidence)
        hint = f"{one.images:,} images: confidence {100 * one.confidence:.1f} %, right {100 * one.accuracy:.1f} %"
        svg.add("line", x1=place, x2=place, y1=y(share.low), y2=y(share.high), class_="whisker main thin")
        seen.append((place, y(one.accuracy)))
        svg.add("circle", cx=place, cy=y(one.accuracy), r=5, class_="dot main", hint=hint)
    svg.path(seen, class_="line main faint")
    most = max(one.images for one in bins)
    for one in bins:
        height = (counts_bottom - counts_top) * one.images / most
        left, right = x(one.low) + 1.5, x(one.high) - 1.5
        hint = f"{one.images:,} images with {100 * one.low:.0f} to {100 * one.high:.0f} % confidence"
        svg.add("rect", x=left, y=counts_bottom - height, width=right - left, height=height, class_="bar", hint=hint)
    svg.add("line", x1=_LEFT, x2=_RIGHT, y1=counts_bottom, y2=counts_bottom, class_="axis")
    svg.add("text", "images", x=_LEFT - 6, y=counts_bottom, class_="tick end")
    svg.add("text", "confidence", x=_RIGHT, y=counts_bottom + 17, class_="tick end")
    return svg.markup()


def confusion_chart(name: str, class_names: Sequence[str], confusion: Sequence[Sequence[int]]) -> Markup | None:
    """Draw a confusion matrix `[C, C]`, each row as shares of its label; nothing where the classes are too many."""
    classes = len(class_names)
    if classes > _MOST_CLASSES:
        return None
    labels = [shortened(one, 14) for one in class_names]
    gutter = 14 + LETTER * max(map(len, labels))
    side = min(44.0, (WIDTH - gutter) / classes)
    top, end = gutter, gutter + side * classes
    right = sum(row[place] for place, row in enumerate(confusion))
    images = sum(map(sum, confusion))
    text = f"{right:,} of {images:,} images lie on the diagonal. Rows are labels, columns predictions."
    svg = Svg(name, "Confusion", text, end + 4)
    font = "tick" if side >= 15 else "tick small"
    for place, label in enumerate(labels):
        middle = gutter + side * (place + 0.5)
        svg.add("text", label, x=gutter - 8, y=middle + 4, class_=f"{font} end", hint=class_names[place])
        turn = f"translate({middle + 4:.1f} {top - 8:.1f}) rotate(-90)"
        svg.add("text", label, transform=turn, class_=f"{font} start", hint=class_names[place])
    for place, row in enumerate(confusion):
        for said, count in enumerate(row):
            _cell(svg, class_names, (place, said), count, sum(row), (gutter, side))
    return svg.markup()


def _cell(
    svg: Svg, class_names: Sequence[str], place: tuple[int, int], count: int, total: int, grid: tuple[float, float]
) -> None:
    (label, said), (gutter, side) = place, grid
    share = count / total if total else 0.0
    left, upper = gutter + side * said, gutter + side * label
    hint = f"{class_names[label]} taken for {class_names[said]}: {count:,} of {total:,}"
    kind = "cell right" if label == said else "cell wrong"
    inner = max(1.0, side - 2)
    svg.add("rect", x=left + 1, y=upper + 1, width=inner, height=inner, rx=2, class_="cell")
    if count:
        svg.add(
            "rect", x=left + 1, y=upper + 1, width=inner, height=inner, rx=2, class_=kind,
            fill_opacity=0.15 + 0.85 * share, hint=hint,
        )  # fmt: skip
    if count and len(class_names) <= _NUMBERED_CLASSES:
        over = "count over" if share > 0.5 else "count"
        svg.add("text", f"{count:,}", x=left + side / 2, y=upper + side / 2 + 4, class_=f"{over} middle")
