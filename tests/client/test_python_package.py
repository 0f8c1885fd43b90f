"""The package `vl2v`: names that load when they are used, types that say the same, HTML and bars for notebooks."""

from __future__ import annotations

import ast
import importlib
import io
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import vl2v
from support.client import python_script
from support.client.buying_bench import plan_for
from support.client.fake_vendor import FakeVendor
from support.help_screens import flags_of
from vl2v import progress_display as display
from vl2v.account import Bill
from vl2v_client.audit.audit_report import AuditReport, Difference
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.cli.app import app
from vl2v_client.config.names import config_of, options_by_name
from vl2v_client.core.errors import UsageError
from vl2v_client.reports.pages import Purchase
from vl2v_client.reports.report import ReportRow, RunReport
from vl2v_contract.records import Breakdown, Summary, Totals

HOSTILE = "<script>alert(1)</script>\x1b[2J&\u202e"


def _tree(module: Any) -> ast.Module:
    return ast.parse(Path(module.__file__).read_text())


def test_mypy_and_python_see_the_same_names() -> None:
    block = next(node for node in _tree(vl2v).body if isinstance(node, ast.If))
    static = {
        alias.name: imported.module
        for imported in block.body
        if isinstance(imported, ast.ImportFrom)
        for alias in imported.names
    }
    assert static == vl2v._MODULES
    assert sorted(static) == list(vl2v.__all__)
    for name, module in static.items():
        assert getattr(vl2v, name) is getattr(importlib.import_module(str(module)), str(name))
    assert set(vl2v.__all__) <= set(dir(vl2v))


def test_the_script_that_mypy_checks_uses_each_name() -> None:
    used = {
        node.attr
        for node in ast.walk(_tree(python_script))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "vl2v"
    }
    assert used == set(vl2v.__all__)


def test_a_name_that_is_none_is_told() -> None:
    with pytest.raises(AttributeError, match="module 'vl2v' has no attribute 'embed'"):
        vl2v.embed  # noqa: B018


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_package_loads_nothing_by_itself() -> None:
    done = _python("import sys, vl2v; print(sorted({'numpy', 'torch', 'httpx', 'PIL', 'pydantic'} & set(sys.modules)))")
    assert done.stdout == "[]\n", done.stderr


def test_a_missing_package_is_named_with_its_extra() -> None:
    missing = [("Client", "httpx"), ("Client", "PIL"), ("load", "torch")]
    code = f"""
import sys, vl2v
for name, package in {missing}:
    sys.modules[package] = None
    try:
        getattr(vl2v, name)
    except ImportError as error:
        print(error)
    del sys.modules[package]
"""
    done = _python(code)
    for (name, package), said in zip(missing, done.stdout.splitlines(), strict=True):
        assert f"vl2v.{name}: the package {package} is not installed, of the extra `client`: pip install" in said


def test_each_flag_of_distill_is_a_keyword() -> None:
    flags = {flag.removeprefix("--").replace("-", "_") for flag in flags_of(app, "distill")}
    assert set(options_by_name()) - flags == set()


def test_an_option_that_is_none_or_out_of_range_is_named() -> None:
    assert config_of({"data": "photos", "baseline": "erm", "learning_rate": 1e-3}).training.baselines == ("erm",)
    base = config_of({"views": 2, "seed": 1})
    assert (config_of({"seed": 3}, base).purchase.views, config_of({"seed": 3}, base).training.seed) == (2, 3)
    assert config_of({"seed": 3}, base).training.named() == {"seed": 3}
    with pytest.raises(UsageError, match="there is no option 'veiws': did you mean 'views'"):
        config_of({"veiws": 2})
    with pytest.raises(UsageError, match="views -1: input should be greater than or equal to 0"):
        config_of({"views": -1})


def _report() -> RunReport:
    return RunReport(
        dataset=HOSTILE,
        class_names=(HOSTILE, "dog"),
        source_domains=("photo",),
        target_domain=f"sketch{HOSTILE}",
        counts={"train": 2, "validation": 2, "target": 2},
        rows=(ReportRow("ERM", 0.5, 0.25, note=HOSTILE), ReportRow(HOSTILE, 0.75, 0.5)),
        purchase=Purchase(4, 2, 600, HOSTILE),
        teacher=HOSTILE,
        student="tiny",
        seed=0,
        settings={},
        confusion=[[1, 0], [1, 0]],
    )


def _summary() -> Summary:
    named = (Breakdown(units=2, amount_micro=200, name=HOSTILE),)
    return Summary(
        ledger_id="l",
        account_id=HOSTILE,
        api_key_id="k",
        currency="EUR",
        limit_units=9,
        used_units=2,
        remaining_units=7,
        total=Totals(units=2, amount_micro=200),
        by_day=(),
        by_model=named,
        by_endpoint=(),
        by_key=(),
        head_seq=1,
        head_hash="0" * 64,
    )


def test_a_notebook_shows_every_text_letter_by_letter(vendor: FakeVendor, cache: EmbeddingCache) -> None:
    vendor.model_id = HOSTILE.replace("/", "")
    plan = plan_for(vendor, cache, [], ["a cat"])
    audit = AuditReport(ledger_id="l", account_id=HOSTILE, currency="EUR")
    audit.findings.add(Difference.BAD_SIGNATURE, HOSTILE)
    shown = {
        "to buy</td><td>1": plan._repr_html_(),
        "75.0 %</td><td>50.0 %": _report()._repr_html_(),
        "2</td><td>0.0002 EUR": Bill(_summary())._repr_html_(),
        "bad_signature</td><td>1: ": audit._repr_html_(),
    }
    for fact, html in shown.items():
        assert fact in html
        assert "&lt;script&gt;" in html
        assert "<script" not in html
        assert html.isprintable()


class _Handle:
    def __init__(self, drawn: list[str]) -> None:
        self._drawn = drawn

    def update(self, shown: Any) -> None:
        self._drawn.append(shown._repr_html_())


def test_bars_in_a_notebook_are_drawn_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    def show(shown: Any, *, display_id: bool) -> _Handle:
        assert display_id
        drawn.append(shown._repr_html_())
        return _Handle(drawn)

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=show))
    progress = display.progress_display(True)
    for done in range(1, 101):
        progress("buy", done, 100, {"spent": HOSTILE})
    progress("align", 1, 2)
    assert 2 <= len(drawn) < 20  # not at every step
    assert "<progress max=100 value=100>" in drawn[-1]
    assert "<script" not in drawn[-1]
    assert repr(progress) == "buy: 100/100\nalign: 1/2"


def test_bars_on_a_terminal_are_a_line_and_in_a_file_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    progress = display.progress_display(True)
    progress("buy", 1, 2, {"spent": HOSTILE})
    progress("buy", 2, 2)
    lines = terminal.getvalue()
    assert lines.endswith("buy: 2/2\n")
    assert Counter(lines)["\x1b"] == 2  # our own, to clear the line
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    display.progress_display(True)("buy", 1, 2)
    assert sys.stderr.getvalue() == ""  # type: ignore[attr-defined]
    assert display.progress_display(False) is display.silent
