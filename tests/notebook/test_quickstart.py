"""The notebook of the documents runs from its first cell to its last, without a download; see `make test-notebook`."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "quickstart.ipynb"
CPU_SECONDS = 60


def test_the_notebook_is_kept_without_outputs() -> None:
    cells: list[dict[str, Any]] = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell["outputs"] for cell in cells if cell["cell_type"] == "code" and cell["outputs"]] == []


@pytest.mark.notebook
def test_the_notebook_runs_within_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    why = "nbclient and ipykernel are not installed: pip install -e '.[notebook]'"
    nbclient = pytest.importorskip("nbclient", reason=why)
    nbformat = pytest.importorskip("nbformat", reason=why)
    pytest.importorskip("ipykernel", reason=why)
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # nothing beyond this machine answers
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    before = _children_seconds()
    ran = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    seconds = _children_seconds() - before
    shown = json.dumps(ran.cells)
    assert "<progress max=" in shown  # bars, in the output of a cell
    assert "Audit of" in shown
    assert "both books agree" in shown
    assert seconds < CPU_SECONDS  # a minute of one core, however busy the machine


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)  # of the kernel and its vendor, which are waited for
    return used.ru_utime + used.ru_stime
