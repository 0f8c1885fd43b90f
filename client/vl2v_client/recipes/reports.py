"""Write the page of a finished run or sweep again, or compare several runs on one page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vl2v_client.core.errors import UsageError
from vl2v_client.core.files import write_whole
from vl2v_client.reports.comparison import ComparedRun, Comparison, comparison_page
from vl2v_client.reports.html_page import PAGE_FILE
from vl2v_client.reports.report import read_report
from vl2v_client.reports.sweep_page import sweep_page
from vl2v_client.reports.sweep_report import read_sweep_report
from vl2v_client.runs.run_folder import open_run_folder
from vl2v_client.runs.run_page_data import load_run_page, write_run_page


@dataclass(frozen=True)
class WrittenReport:
    """A report whose page was written.

    Attributes:
        record: The report as JSON values.
        lines: Header and rows of its accuracies.
        page: Where the page is.
    """

    record: Mapping[str, Any]
    lines: Sequence[Sequence[str]]
    page: Path


def rewrite_report(folder: Path, out: Path | None) -> WrittenReport:
    """Write the page of a finished run or sweep.

    Raises:
        RunError: `folder` is neither.
        CacheError: The page cannot be written.
    """
    found = open_run_folder(folder)
    if not found.config.get("sweep"):
        page = write_run_page(found, out)
        report = read_report(folder)
        return WrittenReport(report.to_json(), report.accuracies(brief=True), page)
    of_sweep, page = read_sweep_report(folder), out or folder / PAGE_FILE
    write_whole(page, sweep_page(of_sweep))
    return WrittenReport(of_sweep.to_json(), of_sweep.brief(), page)


def compare_runs(folders: Sequence[Path], out: Path) -> Comparison:
    """Compare finished runs, the first with each other one, and write a page of them.

    Raises:
        UsageError: A folder is named twice.
        RunError: One of them is not a finished run.
        CacheError: The page cannot be written.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("a run is named twice: name each once")
    pages = [load_run_page(open_run_folder(folder)) for folder in folders]
    names = short_names(folders)
    runs = [ComparedRun(name, page.report, tuple(page.own)) for name, page in zip(names, pages, strict=True)]
    comparison = Comparison(tuple(runs))
    write_whole(out, comparison_page(comparison))
    return comparison


def short_names(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the folders' paths that tell them apart."""
    paths = [folder.resolve().parts for folder in folders]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return list(map(str, folders))
