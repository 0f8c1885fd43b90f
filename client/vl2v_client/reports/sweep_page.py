"""The page of a sweep: every method on every target, over the seeds, and what its queries were worth."""

from pathlib import Path

from markupsafe import Markup

from vl2v_client.core.files import write_whole
from vl2v_client.evaluation.intervals import Estimate
from vl2v_client.reports.charts import Dot, dots
from vl2v_client.reports.html_page import PAGE_FILE, render_page
from vl2v_client.reports.pages import percent
from vl2v_client.reports.query_curve import QueryPoint, query_curve
from vl2v_client.reports.sweep_report import MethodRow, Spread, SweepReport, method_rows, write_sweep_report


def write_sweep(folder: Path, report: SweepReport) -> None:
    """Write the report of a sweep: Markdown, JSON and page.

    Raises:
        CacheError: The folder cannot be written.
    """
    write_sweep_report(folder, report)
    write_whole(folder / PAGE_FILE, sweep_page(report))


def sweep_page(report: SweepReport) -> str:
    """Return a page of a sweep."""
    rows = method_rows(report.outcomes)
    places = [("mean", "mean of the targets"), *((target, f"unseen {target}") for target in report.targets)]
    header, *lines = report.accuracies(whole_target=False)
    whole_header, *whole_lines = report.accuracies(whole_target=True)
    points = [QueryPoint(report.queries.get(row.method, 0), _estimate(row.mean), row.method) for row in rows]
    curve = query_curve("queries", report.dataset, points) if len({one.queries for one in points}) > 1 else ""
    return render_page(
        "sweep.html",
        f"{report.dataset}: leave one domain out",
        dataset=report.dataset,
        lead=_lead(rows),
        charts=[
            {"caption": caption, "chart": _chart(f"target{number}", report, rows, place)}
            for number, (place, caption) in enumerate(places)
        ],
        lines_are="Lines are standard errors over the seeds." if len(report.seeds) > 1 else "One seed has no spread.",
        header=["method", *header[1:]],
        rows=lines,
        whole_header=["method", *whole_header[1:]],
        whole_rows=whole_lines,
        curve=curve,
        query_rows=[[one.name, f"{one.queries:,}", percent(one.accuracy.value)] for one in points],
        cost=report.cost(str),
        protocol=report.protocol(str),
    )


def _lead(rows: list[MethodRow]) -> str:
    best, *others = sorted(rows, key=lambda row: -row.mean.mean)
    lines = [f"{best.method} reaches {percent(best.mean.mean)}, the mean of the unseen domains."]
    lines += [f"{row.method} reaches {percent(row.mean.mean)}." for row in others]
    return " ".join(lines)


def _chart(name: str, report: SweepReport, rows: list[MethodRow], place: str) -> Markup:
    drawn = [Dot(row.method, _estimate(row.mean if place == "mean" else row.by_target[place]), "main") for row in rows]
    known = report.teacher_target_in
    if set(known) == set(report.targets):
        of_teacher = sum(known.values()) / len(known) if place == "mean" else known[place]
        drawn.insert(0, Dot("zero-shot teacher", Estimate(of_teacher, of_teacher, of_teacher), "reference"))
    return dots(name, f"Accuracy, {place}", drawn)


def _estimate(share: Spread) -> Estimate:
    """Return a mean with one standard error to each side."""
    error = share.standard_error or 0.0
    return Estimate(share.mean, max(0.0, share.mean - error), min(1.0, share.mean + error))
