"""The exported student is the one that was scored, and the report says what is true."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
from safetensors.torch import load_file

from support.client.student_factories import CLASSES, SIZE, TINY_VIT, coloured_views, fresh_classifier
from vl2v_client.core.errors import DataError, RunError
from vl2v_client.export.weights import export_bundle, load_bundle
from vl2v_client.reports.last_stage import LastStage
from vl2v_client.reports.pages import LocalAnswers, Purchase, cost_text
from vl2v_client.reports.report import DomainRow, ReportRow, RunReport, read_report, write_report
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard

PIXELS = coloured_views(5, views=1).pixels[:, 0]


def _bundle(*, text: bool = True) -> StudentBundle:
    card = StudentCard(
        TINY_VIT,
        SIZE,
        CLASSES,
        "VL2V-ADiP" if text else "ERM",
        seed=3,
        prompt_templates=("a photo of a {class}",) if text else (),
        logit_scale=20.0 if text else None,
        temperature=1.5,
        teacher={"id": "tiny", "weights_sha": "ab"},
        queries={"images": 24, "texts": 3},
        scores={"target": 0.5},
        target_domain="sketch",
    )
    return StudentBundle(fresh_classifier(text=text), card)


@pytest.mark.parametrize("text", [True, False])
def test_the_student_read_back_gives_the_same_bits(tmp_path: Path, text: bool) -> None:
    bundle = _bundle(text=text)
    export_bundle(tmp_path, bundle, check_pixels=PIXELS)
    again = load_bundle(tmp_path)
    assert np.array_equal(again.classifier.logits(PIXELS), bundle.classifier.logits(PIXELS))
    assert again.card == replace(bundle.card, weights_sha256=again.card.weights_sha256)
    assert len(again.card.weights_sha256) == 64


def test_timm_loads_the_backbone_with_no_key_missing(tmp_path: Path) -> None:
    export_bundle(tmp_path, _bundle(), check_pixels=PIXELS)
    stored = load_file(tmp_path / "student.safetensors")
    backbone = {name.removeprefix("backbone."): value for name, value in stored.items() if name.startswith("backbone.")}
    model = timm.create_model(TINY_VIT.architecture, num_classes=0, **TINY_VIT.arguments)
    assert model.load_state_dict(backbone).missing_keys == []
    assert {name for name in stored if not name.startswith("backbone.")} == {
        "projection.weight",
        "projection.bias",
        "classifier",
    }


def test_a_damaged_or_missing_student_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no exported student"):
        load_bundle(tmp_path)
    export_bundle(tmp_path, _bundle(), check_pixels=PIXELS)
    weights = tmp_path / "student.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match="is damaged"):
        load_bundle(tmp_path)
    weights.write_bytes(whole)
    card = json.loads((tmp_path / "student.json").read_text())
    (tmp_path / "student.json").write_text(json.dumps({**card, "format": 99}))
    with pytest.raises(DataError, match="not of format 1"):
        load_bundle(tmp_path)
    (tmp_path / "student.json").write_text("[1]")
    with pytest.raises(DataError, match="not of format 1"):
        load_bundle(tmp_path)
    card["student"]["arguments"]["depth"] = 2
    (tmp_path / "student.json").write_text(json.dumps(card))
    with pytest.raises(DataError, match="does not fit its card"):
        load_bundle(tmp_path)


def _report(target: str | None = "sketch") -> RunReport:
    measured = target is not None
    rows = (
        ReportRow("zero-shot teacher", 0.98, 0.95 if measured else None, 0.94 if measured else None),
        ReportRow("ERM", 0.97, 0.61 if measured else None, 0.6 if measured else None, 1.5, 0.2, "rate 0.001", 0.3),
        ReportRow("VL2V-ADiP", 0.99, 0.83 if measured else None, 0.82 if measured else None, 0.6, 0.03),
    )
    return RunReport(
        dataset="shapes",
        class_names=CLASSES,
        source_domains=("art", "photo"),
        target_domain=target,
        counts={"train": 1600, "validation": 400, "target": 1000},
        rows=rows,
        purchase=Purchase(1600, 3, 1_603_000, "EUR", test_images=400, published_queries=960_192),
        teacher="tiny-clip",
        student="tiny (64 pixels)",
        seed=0,
        settings={"image_weight": "0.5"},
        confusion=[[8, 2, 0], [0, 10, 0], [0, 0, 0]],
        student_folder="student",
        by_domain=(
            DomainRow("art", True, 200, 1.0),
            DomainRow("photo", True, 200, 0.98),
            *([DomainRow("sketch", False, 1000, 0.83)] if measured else []),
        ),
    )


def test_the_report_says_who_won_what_it_cost_and_how_it_was_measured(tmp_path: Path) -> None:
    write_report(tmp_path, _report())
    page = (tmp_path / "report.md").read_text()
    for words in (
        "**VL2V-ADiP reaches 83.0 % on sketch**, a domain that it never saw",
        "-12.0 points against zero-shot teacher, +22.0 points against ERM",
        "| ERM | 97.0 % | 61.0 % | 60.0 % | 1.500 | 20.0 % | 30.0 % | rate 0.001 |",
        "trained with 1,603 queries (1,600 images, 3 texts), 1.603 EUR in all",
        "960,192 queries for this run, 599 times as many.",
        "Trained on 1,600 images of art, photo.",
        "For the teacher's row alone, it asked about 400 test images as well",
        "| red | 8 | 2 | . | 80% |",
        "| image_weight | 0.5 |",
        "| sketch | out-of-domain | 1,000 | 83.0 % |",
        "| *mean* | in-domain, hold-out | 400 | 99.0 % |",
        "| *worst: sketch* | out-of-domain | 1,000 | 83.0 % |",
    ):
        assert words in page, words
    assert "points of accuracy" not in page, "accuracy is not earned by the query"
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["generalisation_measured"] is True
    assert record["rows"][2]["target"] == 0.83


def test_chance_and_the_majority_class_are_rows_and_no_opponents() -> None:
    report = _report()
    trivial = ReportRow("chance", 0.1, 0.1, 0.1), ReportRow("majority class", 0.2, 0.15, 0.15, note="red: art 20.0 %")
    page = replace(report, rows=(report.rows[0], *trivial, *report.rows[1:])).to_markdown()
    assert "| chance | 10.0 % | 10.0 % |" in page
    assert "| majority class | 20.0 % | 15.0 % |" in page
    assert "(-12.0 points against zero-shot teacher, +22.0 points against ERM, intervals are in report.html)" in page


@pytest.mark.parametrize(
    ("swad", "said"),
    [
        ("dead", "the valley of the validation loss was left"),
        ("valley", "the valley of the validation loss was not left by the last step"),
        ("descending", "no valley of the validation loss was found, so they are the last segment"),
    ],
)
def test_the_report_says_what_swad_averaged_and_what_three_weights_of_one_run_reach(swad: str, said: str) -> None:
    last_stage = LastStage((100, 1349), swad, {"swad": 0.867, "best": 0.87, "last": 0.85})  # type: ignore[arg-type]
    report = replace(_report(), last_stage=last_stage)
    assert f"- SWAD averages steps 100 to 1,349 of the last stage: {said}. Weights of that stage on source " in (
        report.to_markdown()
    )
    assert "validation: swad 86.7 %, best 87.0 %, last 85.0 %." in report.to_markdown()
    assert report.to_json()["last_stage"]["validation"]["swad"] == 0.867
    assert "SWAD" not in _report().to_markdown(), "reports of earlier versions do not know"


def test_what_the_student_does_not_read_is_told_apart_from_its_own_bill() -> None:
    bought = Purchase(1600, 3, 1_603_000, "EUR")
    beside = cost_text(replace(bought, other_queries=40, other_amount_micro=40_000), None)
    assert "trained with 1,603 queries (1,600 images, 3 texts), 1.603 EUR in all" in beside
    assert "For the other rows of the table, the run bought 40 more queries, 0.04 EUR in all" in beside
    assert "other rows" not in cost_text(bought, None)
    assert "trained without any query" in cost_text(Purchase(0, 0, 0, "EUR"), None)


def test_a_report_is_read_back_whole_or_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="finish the run first"):
        read_report(tmp_path)
    local = replace(_report(), purchase=None, local=LocalAnswers(28, 2, online=True))
    assert "28 views and 2 texts, which a vendor would have billed as 30 queries" in local.to_markdown()
    told = replace(_report(), probed=True, last_stage=LastStage((0, 3), "dead", {"swad": 0.5}))
    for report in (_report(), replace(_report(None), purchase=None), local, told):
        write_report(tmp_path, report)
        assert read_report(tmp_path) == report
    record = json.loads((tmp_path / "report.json").read_text())
    for broken, words in (
        ({**record, "format": 9}, "not of format 1"),
        ([record], "not of format 1"),
        ({"format": 1}, "is incomplete"),
    ):
        (tmp_path / "report.json").write_text(json.dumps(broken))
        with pytest.raises(RunError, match=words):
            read_report(tmp_path)


def test_the_report_of_a_plain_folder_says_that_generalisation_was_not_measured() -> None:
    page = _report(None).to_markdown()
    assert "**Generalisation was not measured**" in page
    assert "points against" not in page
    assert "target" not in page
    assert _report(None).to_json()["generalisation_measured"] is False


def test_a_bar_in_a_name_ends_no_cell() -> None:
    report = replace(_report(), class_names=("a | b", *CLASSES[1:]))
    row = next(line for line in report.to_markdown().splitlines() if line.startswith(r"| a \| b"))
    assert row.replace(r"\|", "").count("|") == len(CLASSES) + 3


def test_a_large_confusion_is_left_out_and_no_purchase_is_said() -> None:
    names = tuple(f"class {index}" for index in range(13))
    report = replace(_report(), class_names=names, confusion=[[0] * 13] * 13, purchase=None)
    assert "Confusion" not in report.to_markdown()
    assert "Nothing was bought." in report.to_markdown()
