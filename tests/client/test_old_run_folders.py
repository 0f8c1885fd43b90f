"""Run folders of version 0.1.0 (`config.json` format 1): those of values that stay go on, others are read and kept.

Their views have the teacher's size, also where they go on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from support.client.buying_bench import draw_domains
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import RunError
from vl2v_client.runs.run_folder import RunFolder, current_config
from vl2v_client.student.loss.first_version import SINCE_OF_STAGES, SINCE_OF_TRAINING, as_first_named
from vl2v_client.student.loss.methods import TrainingConfig, vl2v_adip
from vl2v_contract.identity import sha256_hex

SELECTED = ("--max-queries", "10", "--select", "k-center")
FLAT_TRAINING = ("preset", "method", "baselines", "train_views")
RECORDS = ("choice.json", "purchase.json", "used.json", "images.json")


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    torch.set_num_threads(1)
    draw_domains(tmp_path / "data", 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "2")


def make_old(folder: Path, **values: Any) -> None:
    """Rewrite a run folder as version 0.1.0 left it, with some of its values replaced."""
    new = json.loads((folder / "config.json").read_text())
    assert new["format"] == 3
    data, purchase, training = new["data"], new["purchase"], new["training"]
    data["data"], data["prompt_templates"] = data.pop("root"), data.pop("prompts")
    training["carries"] = values.pop("carries", training.pop("final_weights"))
    spending = {"select": purchase["select"], "max_queries": purchase["max_queries"], "rounds": values.pop("rounds", 1)}
    flat = {name: training.pop(name) for name in FLAT_TRAINING if name in training}
    stages = [
        {"carries" if name == "final_weights" else name: value for name, value in stage.items()}
        for stage in new.get("stages", ())
    ]
    config = {
        **{name: value for name, value in new.items() if name not in ("data", "purchase", "stages")},
        **data,
        **{name: purchase[name] for name in ("views", "view_recipe", "impute", "online")},
        **flat,
        **({"stages": stages} if stages else {}),
        "format": 1,
        "style_targets": "bought",
        "spending": spending,
        "training": training,
    } | values
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    sha = sha256_hex(json.dumps(config, sort_keys=True).encode())
    for name in RECORDS:
        if (folder / name).exists():
            record = json.loads((folder / name).read_text()) | {"format": 1, "of": sha}
            if "keys" in record and name == "choice.json":
                record["rounds"] = [record.pop("keys")]
            (folder / name).write_text(json.dumps(record))


def keep_only(folder: Path, *names: str) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
        elif path.name not in names:
            path.unlink()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kill_before_scoring(shell: ClientShell, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vl2v_client.recipes.distill.score_classifier", die)
        patch.setattr(RunFolder, "view_size", lambda _folder, _student, teacher: teacher)
        shell.try_distill(*SELECTED)
    assert not (shell.run_folder / "report.json").exists()


def test_an_unfinished_run_goes_on_with_its_choice_and_buys_nothing(
    vendor: FakeVendor, shell: ClientShell, monkeypatch: pytest.MonkeyPatch
) -> None:
    kill_before_scoring(shell, monkeypatch)
    make_old(shell.run_folder)
    before, bought = contents(shell.run_folder), vendor.billed_units
    shell.distill(*SELECTED)
    after = contents(shell.run_folder)
    assert vendor.billed_units == bought == 10
    for name in ("config.json", "choice.json", "purchase.json", "used.json"):
        assert after[name] == before[name]
    assert json.loads(after["report.json"])["purchase"]["images"] == 8
    assert {name: after[name] for name in before if name.endswith("align.pt")} == {
        name: stored for name, stored in before.items() if name.endswith("align.pt")
    }
    assert json.loads(after["student/student.json"])["view_size"] == vendor.image_size


def test_a_run_that_was_killed_while_it_bought_goes_on_under_its_caps(vendor: FakeVendor, shell: ClientShell) -> None:
    vendor.post("topup", 6 - vendor.limit_units, [])
    assert shell.try_distill(*SELECTED, "--partial").exit_code == 0
    keep_only(shell.run_folder, "config.json", "purchase.json", "choice.json")
    make_old(shell.run_folder)
    chosen = json.loads((shell.run_folder / "choice.json").read_text())["rounds"]
    vendor.post("topup", 100, [])
    refused = shell.try_distill(*SELECTED, "--max-cost", "0.0006")  # 0.00042 EUR of it are spent
    assert "and 6 queries are bought" in str(refused.exception), refused.output
    assert json.loads((shell.run_folder / "choice.json").read_text())["rounds"] == chosen
    shell.distill(*SELECTED)
    assert vendor.billed_units == 10


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"style_targets": "text"}, "style_targets 'text'"),
        ({"rounds": 2}, "rounds 2"),
        ({"spending": {"select": "typiclust", "max_queries": 10, "rounds": 1}}, "select 'typiclust'"),
        ({"impute": "knn"}, "impute 'knn'"),
        ({"carries": "iidmax"}, "carries 'iidmax'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("stage", ["declined", "training", "finished"])
def test_a_run_with_removed_values_is_refused_unharmed_and_evaluated_once_finished(
    shell: ClientShell,
    monkeypatch: pytest.MonkeyPatch,
    vendor: FakeVendor,
    values: dict[str, Any],
    named: str,
    stage: str,
) -> None:
    if stage == "finished":
        shell.distill(*SELECTED)
    else:
        kill_before_scoring(shell, monkeypatch)
    if stage == "declined":
        keep_only(shell.run_folder, "config.json", "purchase.json")
    make_old(shell.run_folder, **values)
    before, bought = contents(shell.run_folder), vendor.billed_units
    refused = shell.try_distill(*SELECTED)
    assert isinstance(refused.exception, RunError), refused.output
    assert f"version 0.2.0 removed ({named}); nothing was changed" in str(refused.exception)
    assert (contents(shell.run_folder), vendor.billed_units) == (before, bought)
    if stage == "finished":
        assert shell.run("evaluate", str(shell.run_folder), "--json").exit_code == 0
        asked = shell.run("evaluate", str(shell.run_folder), "--teacher", "--yes", "--json")
        assert asked.exit_code == 0, asked.output
        assert shell.read("report.json")["rows"][0]["target"] is not None


def test_a_finished_sweep_goes_on_with_another_seed(vendor: FakeVendor, shell: ClientShell) -> None:
    def sweep(*words: str) -> Any:
        quick = ("--align-steps", "2", "--distill-steps", "2", "--batch-size", "2", "--evaluate-every", "2")
        run = ("--method", "text-cosine", "--out", str(shell.run_folder), "--yes", *quick, "--device", "cpu")
        done = shell.run("sweep", *run, *words)
        assert done.exit_code == 0, done.output
        return json.loads((shell.run_folder / "report.json").read_text())

    first = sweep()
    for folder in (shell.run_folder, *shell.run_folder.glob("*/seed0/text-cosine")):
        make_old(folder)
    both = sweep("--seed", "0", "--seed", "1")
    assert both["outcomes"][: len(first["outcomes"])] == first["outcomes"]
    assert len(both["outcomes"]) == 2 * len(first["outcomes"])
    for folder in shell.run_folder.glob("*/seed1/text-cosine"):  # in one report, all views have one size
        assert json.loads((folder / "student" / "student.json").read_text())["view_size"] == vendor.image_size


def test_checkpoints_are_named_by_the_settings_as_version_0_1_0_called_them() -> None:
    stage = vl2v_adip(TrainingConfig()).stages[1]
    assert as_first_named(asdict(stage)) == {
        "name": "distill",
        "trains": ("backbone",),
        "objective": "image_and_text",
        "steps": 5001,
        "learning_rate": 5e-5,
        "carries": "swad",
        "image_weight": None,
        "best_from": 0,
        "best_of_equals": "lower_loss",
        "segments": "original",
    }
    training = TrainingConfig().model_dump()
    later = {name: training.pop(name) for name in SINCE_OF_TRAINING}
    assert later == SINCE_OF_TRAINING  # what 0.1.0 always did, and had no name for
    assert as_first_named({**training, **later}) == {"carries": training.pop("final_weights"), **training}


def test_options_that_came_later_have_their_first_values_in_a_record_of_any_format() -> None:
    for number in (2, 3):
        config = current_config({"format": number, "training": {"seed": 1}, "stages": [{"name": "align"}]})
        assert config["training"] == {**SINCE_OF_TRAINING, "seed": 1}
        assert config["stages"] == [{**SINCE_OF_STAGES, "name": "align"}]
    assert current_config({"format": 3, "sweep": True, "training": {}})["training"] == SINCE_OF_TRAINING
