"""A report as HTML for a notebook: accuracies, their cost, and the confusion; every name is shown letter by letter."""

from vl2v_client.core.html_tables import html_table, html_text
from vl2v_client.reports.pages import cost_text, percent
from vl2v_client.reports.report import RunReport

_MOST_CLASSES = 12  # of a confusion that is shown


def report_html(report: RunReport) -> str:
    """Return the beginning of a report."""
    target = report.target_domain
    unseen = "no domain was held out" if target is None else f"unseen {target}"
    rows = [(row.name, percent(row.source_validation), percent(row.target), row.note) for row in report.rows]
    accuracies = html_table(
        f"{report.dataset}: a student of {report.teacher}", rows, ("", "source validation", unseen, "")
    )
    cost = f"<p>{html_text(cost_text(report.purchase, report.local))}</p>"
    return accuracies + cost + _confusion_html(report)


def _confusion_html(report: RunReport) -> str:
    if report.confusion is None or len(report.class_names) > _MOST_CLASSES:
        return ""
    where = report.target_domain or "source validation"
    pairs = zip(report.class_names, report.confusion, strict=True)
    rows = [(name, *(str(count) for count in counts)) for name, counts in pairs]
    caption = f"Confusion of {report.rows[-1].name} on {where}: rows are labels, columns predictions"
    return html_table(caption, rows, ("", *report.class_names))
