"""`--extend`: further steps from where a run ended, on what it bought, and to the same bits when it is killed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.numpy import load_file

from support.client.buying_bench import draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from support.client.student_factories import CLASSES, TINY_VIT, text_head, training_data
from vl2v_client.config.training import TrainingConfig
from vl2v_client.core.errors import RunError
from vl2v_client.runs.config_record import extension, with_extension, without_extension
from vl2v_client.student.loss.extension import extended
from vl2v_client.student.loss.methods import METHODS
from vl2v_client.student.model.classifier import new_classifier
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.results import TrainingResult

CONFIG = TrainingConfig(
    align_steps=2, distill_steps=4, batch_size=4, evaluate_every=2, checkpoint_every=2, schedule="cosine", device="cpu"
)


class _Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _run(config: TrainingConfig, folder: Path, *, kill: tuple[str, int] | None = None) -> TrainingResult:
    def watch(phase: str, done: int, total: int, extras: Mapping[str, str] | None = None) -> None:
        if (phase, done) == kill:
            raise _Killed

    method = extended(METHODS["vl2v-adip"](config), config)
    classifier = new_classifier(TINY_VIT, text_head(), class_count=len(CLASSES), seed=0)
    data = replace(training_data(), teacher_head=text_head())
    return train(method, classifier, data, config, folder=folder, progress=watch)


def test_an_extension_is_a_stage_like_the_last_with_a_stream_of_its_own() -> None:
    config = CONFIG.replace(extend=(3, 5))
    first, last, *further = extended(METHODS["vl2v-adip"](config), config).stages
    assert (first, last) == METHODS["vl2v-adip"](CONFIG).stages
    assert further == [replace(last, name="extend-1", steps=3), replace(last, name="extend-2", steps=5)]


def test_a_finished_run_goes_on_from_its_checkpoints_and_a_killed_extension_to_the_same_bits(tmp_path: Path) -> None:
    longer = CONFIG.replace(extend=(4,))
    whole = _run(longer, tmp_path / "whole")
    before = _run(CONFIG, tmp_path / "run")
    kept = (tmp_path / "run" / "checkpoints" / "distill.pt").read_bytes()
    with pytest.raises(_Killed):
        _run(longer, tmp_path / "run", kill=("extend-1", 3))
    after = _run(longer, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "distill.pt").read_bytes() == kept
    assert after.history == whole.history
    assert after.history[: len(before.history)] == before.history
    states = [one.classifier.student.state_dict() for one in (before, after, whole)]
    assert all(torch.equal(states[1][name], states[2][name]) for name in states[1])
    assert not all(torch.equal(states[0][name], states[1][name]) for name in states[1])


def test_a_record_is_extended_in_its_own_format_and_equals_itself_without() -> None:
    stages = [{"name": "align", "carries": "best"}, {"name": "distill", "carries": "swad"}]
    first = {"format": 1, "data": "d", "training": {"seed": 1}, "stages": stages}
    new = {"training": {"seed": 1, "extend": [3]}, "stages": [*stages, {"name": "extend-1"}]}
    written = with_extension(first, new)
    assert (extension(first), extension(written)) == ([], [3])
    assert written["stages"] == [*stages, {"name": "extend-1"}]
    assert without_extension(written) == first


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    draw_domains(tmp_path / "data", 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "1")


def test_the_command_extends_a_finished_run_and_buys_nothing(vendor: FakeVendor, shell: ClientShell) -> None:
    shell.distill()
    bought, student = vendor.billed_units, shell.run_folder / "student" / "student.safetensors"
    first, used = load_file(student), (shell.run_folder / "used.json").read_text()
    shell.distill("--extend", "2")
    assert vendor.billed_units == bought
    assert json.loads((shell.run_folder / "config.json").read_text())["training"]["extend"] == [2]
    assert (shell.run_folder / "used.json").read_text() == used
    second = load_file(student)
    assert any((first[name] != second[name]).any() for name in first)
    refused = shell.try_distill().exception
    assert isinstance(refused, RunError)
    assert "was extended by 2 steps: add --extend 2" in str(refused)
    rows = (shell.run_folder / "methods" / "vl2v-adip" / "metrics.jsonl").read_text().splitlines()
    assert {json.loads(row)["stage"] for row in rows} == {"align", "distill", "extend-1"}
