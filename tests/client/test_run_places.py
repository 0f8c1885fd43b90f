"""Which folder a run takes: by its settings where nobody names one, and none is kept by a run that never trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.client_shell import QUICK, ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.config.run import RunConfig
from vl2v_client.core.errors import DataError, RunError
from vl2v_client.runs.run_place import default_folders, place_run


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    torch.set_num_threads(1)
    draw_domains(tmp_path / "data", 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "1")


def _name(**options: dict[str, object]) -> str:
    data = {"root": "photos", "target_domain": "sketch", **options.pop("data", {})}
    student = {"name": "tiny", **options.pop("student", {})}
    return str(default_folders(RunConfig.model_validate({"data": data, "student": student, **options}))[0])


def test_a_folder_is_named_by_data_target_student_and_seed_and_by_other_settings_if_there_are_any() -> None:
    plain = _name()
    assert plain == "runs/photos-sketch-tiny-seed0"
    assert _name(training={"seed": 3}) == "runs/photos-sketch-tiny-seed3"
    assert _name(student={"name": "resnet18.a1_in1k"}) == "runs/photos-sketch-resnet18.a1_in1k-seed0"
    assert _name(data={"target_domain": None}) == "runs/photos-all-tiny-seed0"
    same = ({"views": 4}, {"max_queries": 9}, {"vendor_url": "http://x"}, {"skip_failed": True})
    assert [_name(purchase=one) for one in same] == [plain] * len(same)
    assert _name(training={"extend": (5,), "device": "cpu"}) == plain
    others = [
        _name(purchase={"views": 2}),
        _name(training={"distill_steps": 7}),
        _name(training={"baselines": ("erm",)}),
        _name(data={"prompts": ("a {class}",)}),
        _name(student={"size": 64}),
    ]
    assert len({plain, *others}) == 1 + len(others)
    assert all(one.startswith(f"{plain}-") and len(one) == len(plain) + 7 for one in others)


def test_a_run_of_the_old_name_goes_on_if_its_settings_are_equal_and_else_is_left_alone(
    shell: ClientShell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shell.run("distill", "--yes", *QUICK, "--json").exit_code == 0
    (new,) = Path("runs").iterdir()
    old = new.rename("runs/data-sketch-seed0")
    steps = {"align_steps": 2, "distill_steps": 2, "batch_size": 2, "evaluate_every": 2}
    same = {"data": {"root": "data", "target_domain": "sketch"}, "purchase": {"views": 1}, "training": steps}
    same["student"] = {"name": "tiny"}
    assert place_run(RunConfig.model_validate(same), lambda: None)[1] == old
    other = {**same, "training": {**steps, "image_weight": 0.4}}
    assert place_run(RunConfig.model_validate(other), lambda: None)[1] not in (old, new)


def test_a_run_that_failed_before_it_trained_leaves_its_folder_to_other_settings(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise DataError("no weights")

    with monkeypatch.context() as patch:
        patch.setattr("vl2v_client.runs.method_training.new_classifier", fail)
        assert shell.try_distill().exit_code == 3
    bought = vendor.billed_units
    (shell.run_folder / "methods" / "vl2v-adip").mkdir(parents=True, exist_ok=True)
    (shell.run_folder / "methods" / "vl2v-adip" / "metrics.jsonl").touch()
    shell.distill("--image-weight", "0.4")
    assert vendor.billed_units == bought > 0
    assert json.loads((shell.run_folder / "config.json").read_text())["training"]["image_weight"] == 0.4
    shutil.rmtree(shell.run_folder / "student")
    refused = shell.try_distill()  # its checkpoints are there
    assert (refused.exit_code, "--image-weight was 0.4, is 0.5" in refused.stderr) == (9, True)


@pytest.mark.parametrize("command", ["distill", "sweep"])
def test_a_run_in_its_own_data_set_would_be_a_domain_of_it_and_is_refused(
    vendor: FakeVendor, shell: ClientShell, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shell.data)
    refused = shell.run(command, *QUICK[:-1], "--yes")
    assert isinstance(refused.exception, RunError)
    assert "lies in the data set" in str(refused.exception)
    assert "choose another --out" in str(refused.exception)
    assert sorted(path.name for path in shell.data.iterdir()) == ["art", "photo", "sketch"]
    assert vendor.billed_units == 0
