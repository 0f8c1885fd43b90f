"""`vl2v.distill` and `vl2v.load`: the runs and students of the command line, from Python."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import vl2v
from support.client import python_script
from support.client.buying_bench import draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import API_KEY, FakeVendor, served

QUICK = {
    "align_steps": 2,
    "distill_steps": 2,
    "batch_size": 2,
    "evaluate_every": 2,
    "device": "cpu",
    "probe": False,
    "views": 1,
    "student": "tiny",
}


@pytest.fixture
def url(vendor: FakeVendor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    torch.set_num_threads(1)
    monkeypatch.setenv("VL2V_API_KEY", API_KEY)
    monkeypatch.chdir(tmp_path)
    draw_domains(tmp_path / "data", 5)
    with served(vendor) as url:
        yield url


@pytest.fixture
def client(url: str, tmp_path: Path) -> Iterator[vl2v.Client]:
    with vl2v.Client(url, cache=tmp_path / "client.db", progress=False) as opened:
        yield opened


def test_a_run_is_the_one_of_the_command_line(
    vendor: FakeVendor, client: vl2v.Client, url: str, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run = vl2v.distill(
        data="data", target_domain="sketch", client=client, max_queries=99, out=out, progress=False, **QUICK
    )
    bought = vendor.billed_units
    assert bought == run.report.purchase.images + run.report.purchase.texts  # type: ignore[union-attr]
    words = ("--target-domain", "sketch", "--views", "1")
    again = ClientShell(url, tmp_path, *words).distill()
    assert again["rows"][-1]["target"] == run.report.rows[-1].target
    assert vendor.billed_units == bought
    assert run.report.target_domain == "sketch"
    assert f"{100 * (run.report.rows[-1].target or 0):.1f} %" in run._repr_html_()


def test_a_run_buys_nothing_that_nobody_agreed_to(vendor: FakeVendor, client: vl2v.Client, tmp_path: Path) -> None:
    with pytest.raises(vl2v.NotApproved):
        vl2v.distill(data="data", target_domain="sketch", client=client, progress=False, **QUICK)
    with pytest.raises(vl2v.BudgetExhausted, match="max_queries allows 3: raise it to") as refusal:
        vl2v.distill(data="data", target_domain="sketch", client=client, max_queries=3, progress=False, **QUICK)
    assert refusal.value.left == 3
    assert vendor.billed_units == 0
    with pytest.raises(vl2v.UsageError, match="`client` says where to buy: leave cache out"):
        vl2v.distill(data="data", client=client, cache="other.db", progress=False)
    with pytest.raises(vl2v.UsageError, match="no data set is named: give data"):
        vl2v.distill(client=client, progress=False)


def test_a_student_says_the_same_of_a_file_a_picture_and_an_array(client: vl2v.Client, tmp_path: Path) -> None:
    run = vl2v.distill(
        data="data", target_domain="sketch", client=client, approve=lambda _plan: True, progress=False, **QUICK
    )
    assert run.folder.parent == Path("runs")
    path = tmp_path / "data" / "sketch" / "cat" / "0.png"
    student = vl2v.load(run.folder)
    assert student.class_names == run.student.class_names == ("cat", "dog")
    one = student.predict(path)
    assert one.label == student.class_names[int(one.probabilities.argmax())]
    assert one.probability == one.probabilities.max()
    assert one.probabilities.sum() == pytest.approx(1)
    pixels = np.asarray(Image.open(path))
    for same in (str(path), Image.open(path), pixels):
        assert (student.predict(same).probabilities == one.probabilities).all()
    several = student.predict([path, tmp_path / "data" / "sketch" / "dog" / "1.png", pixels], batch_size=2)
    assert several[0].probabilities == pytest.approx(one.probabilities, abs=1e-5)
    assert len(several) == 3
    assert student.predict([]) == []
    with pytest.raises(vl2v.DataError, match=r"nowhere\.png cannot be read"):
        student.predict([path, "nowhere.png"])
    with pytest.raises(vl2v.UsageError, match="a float is no image"):
        student.predict(0.5)  # type: ignore[call-overload]
    with pytest.raises(vl2v.DataError, match="holds no student: give the folder of a finished `distill`"):
        vl2v.load(tmp_path)
    with pytest.raises(vl2v.UsageError, match=r"^device: there is no device 'odd' here"):
        vl2v.load(run.folder, device="odd")


def test_the_users_script_runs(
    vendor: FakeVendor, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert python_script.embed(url, API_KEY, tmp_path).shape == (2, 1)
    assert python_script.refused(url, API_KEY, tmp_path) == 1
    run = python_script.train(url, tmp_path)
    predictions = python_script.classify(run, tmp_path / "shapes" / "sketch" / "key" / "0000.png")
    assert {one.label for one in predictions} <= {"fish", "key"}
