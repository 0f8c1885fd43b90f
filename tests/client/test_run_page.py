"""`report.html` of a run: it says what is true, needs nothing but itself, and no name in it is markup."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.client.pages import Page, check_page
from support.client.report_pages import predictions, run_report, stage_curve, whole_page
from vl2v_client.evaluation.accuracy import ImagePrediction
from vl2v_client.reports.comparison import ComparedRun, Comparison, comparison_page
from vl2v_client.reports.last_stage import LastStage
from vl2v_client.reports.pages import MINUS, LocalAnswers, Purchase, SharedPurchase
from vl2v_client.reports.report import DomainRow, ReportRow
from vl2v_client.reports.run_charts import CurvePoint, EvaluationPoint, StageCurve
from vl2v_client.reports.run_page import MISTAKES_SHOWN, RunPage
from vl2v_client.reports.sweep_page import sweep_page
from vl2v_client.reports.sweep_report import Outcome, SweepReport

HOSTILE = "\x1b[2J\u202e</title></style><script>alert(1)</script>\"'><img src=http://192.0.2.1 onerror=x>&amp;{{ 7*7 }}"


def test_the_verdict_comes_first_with_its_intervals() -> None:
    page = Page(whole_page().to_html())
    check_page(page)
    text = page.text
    assert text.index("VL2V-ADiP reaches 83.0 % on sketch") < text.index("What it cost")
    assert "95 % interval 79.0 % to 86.4 %, on 400 images of sketch." in text
    assert "Better than chance, the majority class and ERM. Worse than the zero-shot teacher." in text
    assert f"zero-shot teacher {MINUS}12.0 {MINUS}16.4 to {MINUS}7.8 worse" in text, (
        "not image by image, so the wider interval"
    )
    assert "ERM +3.0 +1.2 to +4.9 better" in text
    assert "chance +49.7 +45.7 to +53.0 better" in text


def test_the_page_shows_what_the_report_says() -> None:
    page = Page(whole_page().to_html())
    for words in (
        "queries that it learnt from 1,603",
        "paid for them 1.603 EUR",
        "599 times as many",
        "Stage align: loss",
        "0.0604 above its floor at step 96.",
        "Highest 90.0 %, at step 100.",
        "steps that are averaged",
        "Mean confidence 74.4 %, right 83.0 %",
        "dog, cat 20 14.9 %",
        "cat, taken for dog , 98.9 % sketch/cat/399.png",
        "majority class: cat: art 40.0 %",
        "The student in student/ is that of the last row",
        "image_weight 0.5",
    ):
        assert words in page.text, words
    assert len(page.all("svg")) == 8
    assert len(page.all("table")) == 9, "a table behind each chart, the verdict, the mistakes, the rows, the settings"
    assert len(page.all("img")) == MISTAKES_SHOWN - 1
    assert page.text.count("no picture") == 1


def test_a_page_of_bounded_size() -> None:
    assert len(whole_page().to_html()) < 150_000


@pytest.mark.parametrize("what", ["run", "comparison", "sweep"])
def test_no_name_is_markup_and_nothing_steers(what: str) -> None:
    report = replace(
        run_report(),
        dataset=HOSTILE,
        class_names=(HOSTILE, "dog", HOSTILE + "2"),
        source_domains=(HOSTILE,),
        target_domain=HOSTILE,
        teacher=HOSTILE,
        student=HOSTILE,
        settings={HOSTILE: HOSTILE},
        purchase=Purchase(1, 1, 10, HOSTILE),
        rows=(ReportRow(HOSTILE, 0.5, 0.5, note=HOSTILE), ReportRow("VL2V-ADiP", 0.5, 0.5)),
        by_domain=(DomainRow(HOSTILE, False, 400, 0.5),),
        last_stage=LastStage((1, 2), "dead", {HOSTILE: 0.5}),
        student_folder=HOSTILE,
    )
    said = [ImagePrediction("VL2V-ADiP", f"{HOSTILE}/{n}.png", HOSTILE, "dog", 0.7) for n in range(3)]
    if what == "run":
        html = RunPage(report, said, (stage_curve(HOSTILE),)).to_html()
    elif what == "sweep":
        outcomes = tuple(Outcome(method, HOSTILE, 0, 0.5, 0.5, 0.5) for method in (HOSTILE, "VL2V-ADiP"))
        queries, bought = {HOSTILE: 0, "VL2V-ADiP": 5}, SharedPurchase(1, 1, 10, HOSTILE)
        html = sweep_page(
            SweepReport(
                *(HOSTILE, (HOSTILE,), (0,), HOSTILE, HOSTILE, HOSTILE), outcomes, {HOSTILE: 0.5}, bought, queries, 10
            )
        )
    else:
        html = comparison_page(
            Comparison((ComparedRun(HOSTILE, report), ComparedRun("b", replace(report, purchase=None))))
        )
    page = Page(html)
    check_page(page)
    assert {name for name, _ in page.tags} <= {name for name, _ in Page(whole_page().to_html()).tags}
    assert "<script>alert(1)</script>" in page.text, "shown letter by letter"
    assert "{{ 7*7 }}" in page.text
    assert "\x1b" not in html
    assert "\u202e" not in html


def test_a_page_of_what_an_earlier_version_left() -> None:
    old = replace(run_report(), last_stage=None, confusion=None, by_domain=())
    page = Page(RunPage(old).to_html())
    check_page(page)
    assert "VL2V-ADiP reaches 83.0 %" in page.text
    for heading in ("Training", "Reliability", "Confusion", "The worst mistakes", "Accuracy by domain"):
        assert heading not in page.text


def test_without_an_unseen_domain_the_page_says_so_first() -> None:
    rows = tuple(replace(row, target=None, target_in=None) for row in run_report().rows)
    plain = replace(run_report(), target_domain=None, rows=rows, purchase=None, local=LocalAnswers(5, 1, online=False))
    page = Page(RunPage(plain).to_html())
    check_page(page)
    assert page.text.index("Generalisation was not measured") < page.text.index("Better than")
    assert "5 views and 1 text, which a vendor would have billed as 6 queries" in page.text
    unjudged = Page(RunPage(replace(run_report(), rows=rows)).to_html())
    assert "VL2V-ADiP was not evaluated on sketch" in unjudged.text


@pytest.mark.parametrize("classes", [1, 2, 13, 41, 400])
def test_any_number_of_classes(classes: int) -> None:
    names = tuple(f"class number {number}" for number in range(classes))
    confusion = [[2 if label == said else int(said == 0) for said in range(classes)] for label in range(classes)]
    page = RunPage(replace(run_report(), class_names=names, confusion=confusion)).to_html()
    check_page(Page(page))
    assert len(page) < 600_000
    assert ('class="cell"' in page) == (classes <= 40), "a larger map is no map"
    assert ("Most frequent mistakes" in page) == (classes > 1)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_training_of_a_few_steps(steps: int) -> None:
    points = tuple(CurvePoint(step, -0.5, 0.0) for step in range(1, steps + 1))
    curve = StageCurve("distill", points, (EvaluationPoint(steps, 1.0, 0.0),), (0, steps - 1))
    page = Page(RunPage(run_report(), curves=(curve,)).to_html())
    check_page(page)
    assert "nan" not in page.html
    assert f"0.0000 above its floor at step {steps}" in page.text


def test_an_endless_curve_is_thinned() -> None:
    points = tuple(CurvePoint(step, 1 / step, 1 / step) for step in range(1, 20_000))
    curve = StageCurve("distill", points, (EvaluationPoint(19_999, 0.5, 1.0),))
    assert len(RunPage(run_report(), curves=(curve,)).to_html()) < 80_000


def test_runs_are_compared_with_the_first_image_by_image() -> None:
    student = tuple(one for one in predictions() if one.classifier == "VL2V-ADiP")
    erm = tuple(replace(one, classifier="VL2V-ADiP") for one in predictions() if one.classifier == "ERM")
    fewer = replace(run_report(), purchase=Purchase(160, 3, 163_000, "EUR"), settings={"image_weight": "0.4"})
    fewer = replace(fewer, rows=(*fewer.rows[:-1], ReportRow("VL2V-ADiP", 0.99, 0.80, 0.80)))
    other = replace(run_report(), target_domain="art")
    comparison = Comparison(
        (ComparedRun("a", run_report(), student), ComparedRun("b", fewer, erm), ComparedRun("c", other, student))
    )
    _, second, third = comparison.rows()
    assert second[-1] == f"{MINUS}3.0 ({MINUS}4.9 to {MINUS}1.2)"
    assert third[-1] == "other images"
    page = Page(comparison_page(comparison))
    check_page(page)
    assert f"b is worse than a: {MINUS}3.0 points" in page.text
    assert "c was tested on other images than a." in page.text
    assert "163 queries: 80.0 %; 1,603 queries: 83.0 %" in page.text
    assert "image_weight 0.5 0.4 0.5" in page.text
    assert comparison.to_json()["runs"][1]["against_first"] == pytest.approx(-0.03)
