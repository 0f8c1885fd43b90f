"""A student that cannot be loaded or run is found before anything is bought, and leaves no folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import DataError
from vl2v_client.data.shapes import write_shapes

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
        assert "no numbers: name another --student or --student-weights" in str(done.exception)
