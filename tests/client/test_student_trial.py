"""A student that cannot be loaded or run is found before anything is bought, and leaves no folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import DataError
from vl2v_client.data.shapes import write_shapes
from vl2v_client.student.model import network
from vl2v_client.student.model.spec import StudentSpec

STUDENT = "mobilenetv3_small_050"


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    torch.set_num_threads(1)
    styles, names = ("photo", "cartoon", "sketch"), ("fish", "key")
    write_shapes(tmp_path / "data", seed=3, styles=styles, images_per_class=10, size=16, class_names=names)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path)


@pytest.mark.parametrize("command", ["distill", "sweep", "pilot"])
@pytest.mark.parametrize("fault", ["other", "missing", "not finite"])
def test_nothing_is_bought_for_a_student_that_cannot_be_used(
    vendor: FakeVendor, shell: ClientShell, tmp_path: Path, command: str, fault: str
) -> None:
    weights = timm.create_model(STUDENT, pretrained=False).state_dict()
    if fault == "other":
        weights = {"conv.weight": torch.zeros(1)}
    elif fault == "missing":
        del weights["conv_stem.weight"]
    else:
        weights["conv_stem.weight"][:] = torch.nan
    save_file({name: value.contiguous() for name, value in weights.items()}, tmp_path / "w.safetensors")
    student = ("--student", STUDENT, "--student-weights", str(tmp_path / "w.safetensors"), "--student-size", "32")
    out = () if command == "pilot" else ("--out", str(shell.run_folder), "--device", "cpu")
    done = shell.run(command, *student, *out, "--yes")
    assert isinstance(done.exception, DataError), done.output
    assert vendor.billed_units == 0
    assert not shell.run_folder.exists()
    if fault == "not finite":
        assert "not finite: name another --student or --student-weights" in str(done.exception)


def test_a_run_that_goes_on_needs_no_room_for_what_it_has_written(
    shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, usage = ("--views", "1", "--target-domain", "sketch"), shutil.disk_usage
    with monkeypatch.context() as patched:
        patched.setattr(shutil, "disk_usage", lambda place: usage(place)._replace(free=2**26))
        refused = shell.try_distill(*words)
    assert "MB left, and this run may write" in str(refused.exception)
    assert not shell.run_folder.exists()
    shell.distill(*words)
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(place)._replace(free=2**26))
    shell.distill(*words)


def test_a_student_is_built_once_before_a_purchase(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = 0
    build = network.build_backbone

    def counted(spec: StudentSpec, *, pretrained: bool = True) -> nn.Module:
        nonlocal built
        built += pretrained
        return build(spec, pretrained=pretrained)

    monkeypatch.setattr(network, "build_backbone", counted)
    refused = shell.run("distill", "--out", str(shell.run_folder), "--device", "cpu")
    assert "there is no terminal to ask on" in str(refused.exception)
    assert (built, vendor.billed_units) == (1, 0)
