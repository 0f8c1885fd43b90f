"""`--quick`: the frozen student is exported before the backbone trains, and the same run goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.numpy import load_file

from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.values import PixelSource
from vl2v_client.data.shapes import write_shapes
from vl2v_client.student.model.classifier import StudentClassifier
from vl2v_client.student.model.network import build_student
from vl2v_client.student.model.spec import resolve_student
from vl2v_client.student.train import loop

FROZEN = "VL2V-ADiP, frozen"


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    torch.set_num_threads(1)
    styles, names = ("photo", "cartoon", "sketch"), ("fish", "key")
    write_shapes(tmp_path / "data", seed=3, styles=styles, images_per_class=6, size=16, class_names=names)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "1")


def test_a_quick_run_exports_the_frozen_student_and_the_same_run_goes_on(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts, logits = [], StudentClassifier.logits

    def counted(classifier: StudentClassifier, pixels: PixelSource, **options: Any) -> Any:
        counts.append(len(pixels))
        return logits(classifier, pixels, **options)

    monkeypatch.setattr(StudentClassifier, "logits", counted)
    quick = shell.distill("--quick", "--baseline", "erm")
    hold_out, target = quick["counts"]["validation"], quick["counts"]["target"]
    assert counts == [hold_out, hold_out, target, hold_out], "SWAD's weights, the chosen ones, those read back"
    assert [row["name"] for row in quick["rows"]] == ["zero-shot teacher", "chance", "majority class", FROZEN]
    assert quick["exported"] == FROZEN
    assert [name for name in quick["settings"] if name.startswith("stage")] == ["stage 1"]
    align, batch = (int(quick["settings"][name]) for name in ("align steps", "batch size"))
    assert quick["purchase"]["published_queries"] == 2 * align * batch, "the steps that were taken, of two domains"
    student = load_file(shell.run_folder / "student" / "student.safetensors")
    pretrained = build_student(resolve_student("tiny"), outputs=1, seed=0).backbone.state_dict()
    assert all((student[f"backbone.{name}"] == value.numpy()).all() for name, value in pretrained.items())
    bought = vendor.billed_units

    whole = shell.distill("--baseline", "erm")
    assert [row["name"] for row in whole["rows"]][-2:] == ["ERM", "VL2V-ADiP"]
    assert vendor.billed_units == bought
    at_once = (shell.run_folder / "student" / "student.safetensors").read_bytes()
    shell.run_folder = shell.folder / "other"
    shell.distill("--baseline", "erm")
    assert (shell.run_folder / "student" / "student.safetensors").read_bytes() == at_once


def test_where_nothing_of_the_method_is_left_the_probe_is_exported(shell: ClientShell) -> None:
    report = shell.distill("--quick", "--method", "erm")
    assert [row["name"] for row in report["rows"]] == ["zero-shot teacher", "chance", "majority class", "ridge probe"]
    assert (report["exported"], report["probed"], report["last_stage"]) == ("ridge probe", False, None)
    assert "ridge probe reaches" in (shell.run_folder / "report.md").read_text()
    assert shell.run("predict", str(shell.run_folder), str(shell.data / "sketch")).exit_code == 0
    shell.run_folder = shell.folder / "other"
    beside = shell.distill("--quick", "--method", "erm", "--baseline", "vl2v-adip", "--align-steps", "40")
    assert [row["name"] for row in beside["rows"][-2:]] == [FROZEN, "ridge probe"], "a baseline is never exported"
    refused = shell.try_distill("--quick", "--method", "vl2v-sd", "--local-teacher", "absent.json")
    assert refused.exit_code != 0
    assert shell.run("sweep", "--quick").exit_code == 2


def test_the_first_student_is_told_before_the_others_train(shell: ClientShell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MIN_STEPS", 1)
    done = shell.try_distill("--probe")
    assert done.exit_code == 0, done.output
    said = " ".join(done.stderr.split())
    order = [
        "on cpu to read this run's",
        "A ridge probe on the frozen student has",
        "After the align stage",
        "The distill stage needs",
    ]
    places = [said.index(part) for part in order]
    assert places == sorted(places)
    report = shell.read("report.json")
    assert report["estimate"]["stage"] == "distill"
    assert (report["estimate"]["steps"], report["estimate"]["device"]) == (2, "cpu")
    assert report["estimate"]["memory_bytes"] > 10**7
    assert "Estimate before it began: The distill stage needs about" in (shell.run_folder / "report.md").read_text()
    again = shell.distill("--probe")
    assert again["estimate"] == report["estimate"], "a run that goes on keeps what was said of the whole stage"


def test_a_stage_that_draws_fewer_views_than_a_domain_has_is_told_before_the_purchase(shell: ClientShell) -> None:
    words = ("--views", "4", "--train-views", "4", "--batch-size", "3", "--distill-steps")
    few = " ".join(shell.try_distill(*words, "13").stderr.split())
    said = "draws 39 views of each source domain, and the largest has 40 to train on: with --distill-steps 14 it draws"
    assert said in few
    assert few.index("draws 39 views") < few.index("buy: ")
    enough = shell.try_distill(*words, "14", "--out", str(shell.folder / "enough"))
    assert enough.exit_code == 0, enough.output
    assert "to train on" not in enough.stderr
