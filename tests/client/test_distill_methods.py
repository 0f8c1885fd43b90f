"""`distill --method X` for every method, on a tiny data set and a vendor that sells digests, and what it leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from support.client.buying_bench import draw_pictures
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import UsageError
from vl2v_client.student.loss.methods import METHODS, TrainingConfig, check_additions, check_effects

CONTENTS = 5
"""Distinct pictures: each class and domain has the same five."""
OWN_LOSS = ("erm", "linear-probe", "lp-ft", "text-head", "kd", "vl2lite", "rise-relative", "feature-mse", "simkd")
BLACK_BOX = sorted(set(METHODS) - {"vl2v-sd"})


@pytest.fixture
def shell(vendor: FakeVendor, tmp_path: Path) -> Iterator[ClientShell]:
    """Three domains of two classes of five pictures; one domain is held out."""
    torch.set_num_threads(1)
    for domain in ("art", "photo", "sketch"):
        for name in ("cat", "dog"):
            draw_pictures(tmp_path / "data" / domain / name, 5)
    with served(vendor) as url:
        yield ClientShell(url, tmp_path, "--target-domain", "sketch", "--views", "1")


@pytest.mark.parametrize("method", BLACK_BOX)
def test_every_method_goes_the_whole_road(shell: ClientShell, method: str) -> None:
    done = shell.try_distill("--method", method)
    assert done.exit_code == 0, done.output
    name, head = METHODS[method](TrainingConfig()).name, METHODS[method](TrainingConfig()).head
    card, report, config = (shell.read(f) for f in ("student/student.json", "report.json", "config.json"))
    assert (card["method"], config["training"]["method"], config["training"]["preset"]) == (name, method, "default")
    assert report["rows"][-1]["name"] == name
    assert report["rows"][-1]["target"] == card["scores"]["target"]
    assert bool(card["prompt_templates"]) == (card["logit_scale"] is not None) == (head == "text")
    assert f"| method | {name} |" in (shell.run_folder / "report.md").read_text()
    predicted = shell.run("predict", str(shell.run_folder), str(shell.data / "sketch" / "cat"))
    assert [line.split(",")[1] in ("cat", "dog") for line in predicted.stdout.splitlines()[1:]] == [True] * 5


def test_a_student_frozen_in_part_goes_it_too_and_a_wrong_cut_buys_nothing(
    shell: ClientShell, vendor: FakeVendor
) -> None:
    words = ("--schedule", "cosine", "--warmup", "0.5", "--optimizer", "adamw", "--weight-decay", "0.1")
    refused = shell.try_distill(*words, "--freeze-until", "5")
    assert (refused.exit_code, vendor.billed_units) == (2, 0)
    assert "--freeze-until 5: 'tiny' has 5 blocks" in " ".join(refused.stderr.split())
    done = shell.try_distill(*words, "--freeze-until", "3")
    assert done.exit_code == 0, done.output
    assert [stage["freeze_until"] for stage in shell.read("config.json")["stages"]] == [0, 3]
    report = (shell.run_folder / "report.md").read_text()
    assert all(f"| {row} |" in report for row in ("freeze until | 3", "schedule | cosine", "optimizer | adamw"))
    other = shell.try_distill(*words, "--freeze-until", "2")
    assert (other.exit_code, "--freeze-until was 3, is 2" in " ".join(other.stderr.split())) == (9, True)


def test_predict_reads_a_folder_as_a_data_set_is_read(shell: ClientShell, tmp_path: Path) -> None:
    shell.try_distill("--method", "linear-probe")
    cats = shell.data / "sketch" / "cat"
    (cats / "._0.png").write_bytes(b"what an archive left")
    (cats / "folder.png").mkdir()
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "cats").symlink_to(cats)
    predicted = shell.run("predict", str(shell.run_folder), str(tmp_path / "links"))
    assert predicted.exit_code == 0, predicted.output
    assert len(predicted.stdout.splitlines()) == 1 + 5


def test_a_linear_student_is_evaluated_with_its_teacher_and_baselines_stand_beside_it(shell: ClientShell) -> None:
    done = shell.try_distill("--method", "erm", "--baseline", "vl2v-adip", "--baseline", "kd")
    assert done.exit_code == 0, done.output
    names = [row["name"] for row in shell.read("report.json")["rows"]]
    assert names == ["zero-shot teacher", "chance", "majority class", "VL2V-ADiP", "KD", "ERM"]
    folders = {path.name for path in (shell.run_folder / "methods").iterdir()}
    assert folders >= {"vl2v-adip", "kd", "erm-lr-9e-05", "erm-lr-0.0003"}
    purchase = shell.read("report.json")["purchase"]
    assert [purchase[name] for name in ("images", "texts", "amount_micro", "published_queries")] == [0, 0, 0, None]
    assert (purchase["other_queries"], purchase["other_amount_micro"]) == (CONTENTS + 2, 100 * CONTENTS + 2 * 10)
    assert shell.read("student/student.json")["queries"] == {"images": 0, "texts": 0}
    page = (shell.run_folder / "report.md").read_text()
    assert "was trained without any query. For the other rows of the table, the run bought 7 more queries" in page
    asked = shell.run("evaluate", str(shell.run_folder), "--teacher", "--yes")
    assert asked.exit_code == 0, asked.output
    teacher = shell.read("report.json")["rows"][0]
    assert teacher["target"] is not None


def test_a_method_that_reads_no_image_buys_none_and_is_not_compared_with_the_published_bill(shell: ClientShell) -> None:
    assert shell.try_distill("--method", "text-cosine", "--baseline", "erm").exit_code == 0
    purchase = shell.read("report.json")["purchase"]
    assert (purchase["images"], purchase["texts"], purchase["published_queries"]) == (0, 2, None)


def test_what_a_baseline_alone_reads_is_not_on_the_student_s_bill(vendor: FakeVendor, shell: ClientShell) -> None:
    styled = ("--views", "3", "--view-recipe", "all-styles")
    assert shell.try_distill("--method", "text-cosine", "--baseline", "vl2v-adip", *styled).exit_code == 0
    purchase = shell.read("report.json")["purchase"]
    assert (purchase["images"], purchase["texts"]) == (0, 2)
    assert purchase["other_queries"] == vendor.billed_units - 2 > CONTENTS


@pytest.mark.parametrize(("option", "without_images"), [("label_weight", ()), ("soft_label_weight", ("text-cosine",))])
def test_an_addition_of_nought_or_of_a_preset_stands_beside_every_method(
    option: str, without_images: tuple[str, ...]
) -> None:
    for name in METHODS:
        check_additions(TrainingConfig(), {}, [name])
        check_additions(TrainingConfig(), {option: 0.0}, [name])
    check_additions(TrainingConfig(), {option: 0.3}, sorted(set(METHODS) - {*OWN_LOSS, *without_images}))


def test_soft_labels_are_refused_where_no_answer_about_an_image_is_read() -> None:
    named = {"soft_label_weight": 4.0}
    for name, config in (("text-cosine", TrainingConfig()), ("vl2v-adip", TrainingConfig(image_weight=0))):
        with pytest.raises(UsageError, match=f"soft_label_weight 4 changes nothing in {name}"):
            check_additions(config, named, [name])
    check_additions(TrainingConfig(image_weight=0), {"label_weight": 4.0}, ["vl2v-adip"])


@pytest.mark.parametrize(
    ("field", "ignored"),
    [
        ("align_steps", {"vl2v-sd"}),
        ("align_learning_rate", {"erm", "kd", "vl2lite", "simkd", "adip-no-align", "adip-joint", "vl2v-sd"}),
        ("distill_learning_rate", {"linear-probe", "adip-align-only"}),
        ("image_weight", set(METHODS) - {"vl2v-adip", "vl2v-sd", "adip-no-align", "adip-align-only", "adip-joint"}),
    ],
)
def test_a_value_that_every_method_of_a_run_ignores_is_refused(field: str, ignored: set[str]) -> None:
    for name in METHODS:
        if name in ignored:
            with pytest.raises(UsageError, match=f"changes nothing in {name}: leave it out"):
                check_effects([name], {field: 0.1})
        else:
            check_effects([name], {field: 0.1})
        check_effects([name, "adip-joint", "linear-probe"], {field: 0.1})
        check_effects([name], {})


def test_the_command_refuses_a_value_without_effect_before_it_spends(vendor: FakeVendor, shell: ClientShell) -> None:
    done = shell.try_distill("--method", "erm", "--image-weight", "0.3")
    assert "--image-weight changes nothing in erm" in str(done.exception)
    assert vendor.billed_units == 0


def test_what_is_carried_and_interpolated_is_in_the_report(shell: ClientShell) -> None:
    done = shell.try_distill("--carry", "ema", "--interpolate")
    assert done.exit_code == 0, done.output
    assert "WiSE-FT with" in shell.read("report.json")["rows"][-1]["note"]
    page = (shell.run_folder / "report.md").read_text()
    for line in ("| final weights | ema |", "| interpolate | True |", "| ema decay | 0.999 |", "| preset | default |"):
        assert line in page
    other = shell.try_distill("--carry", "last", "--interpolate")
    assert "--carry was 'ema', is 'last'" in str(other.exception)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--method", "magic"), '"magic" for --method. Choose from: "vl2v-adip"'),
        (("--baseline", "magic"), '"magic" for --baseline. Choose from:'),
        (("--method", "erm", "--baseline", "erm"), "named twice"),
        (("--method", "vl2v-sd"), "teacher's weights"),
        (("--preset", "magic"), '"magic" for --preset. Choose from: "default", "thorough", "paper"'),
        (("--preset", "paper"), "the paper has no student 'tiny'"),
        (("--carry", "magic"), '"magic" for --carry. Choose from: "swad"'),
        *(
            (("--method", name, option, "0.3"), f"{option} 0.3 changes nothing in {name}: leave it out")
            for name in OWN_LOSS
            for option in ("--label-weight", "--soft-label-weight")
        ),
        (("--baseline", "kd", "--baseline", "erm", "--label-weight", "1"), "changes nothing in kd, erm: leave it out"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_is_bought(
    vendor: FakeVendor, shell: ClientShell, words: tuple[str, ...], complaint: str
) -> None:
    refused = shell.try_distill(*words)
    assert isinstance(refused.exception, UsageError), refused.output
    assert complaint in str(refused.exception)
    assert vendor.billed_units == 0
