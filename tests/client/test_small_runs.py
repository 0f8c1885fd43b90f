"""What a report says of a run of few images, steps or queries makes sense."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from vl2v_client.reports.last_stage import LastStage
from vl2v_client.reports.pages import LocalAnswers, Purchase, SharedPurchase, cost_text
from vl2v_client.reports.report import DomainRow, ReportRow, RunReport
from vl2v_client.reports.sweep_report import Outcome, SweepReport


def _report(images: int = 7) -> RunReport:
    return RunReport(
        dataset="photos",
        class_names=("cat", "dog"),
        source_domains=("photo",),
        target_domain="sketch",
        counts={"train": 1, "validation": 1, "target": images},
        rows=(
            ReportRow("ERM", 1.0, 2 / 7, 2 / 7, 1.0, 0.5, "", 0.6),
            ReportRow("VL2V-ADiP", 1.0, 3 / 7, 0.5, 1.0, 0.4),
        ),
        purchase=Purchase(1, 1, 200, "EUR", test_images=1, published_queries=2, other_queries=1),
        teacher="tiny",
        student="tiny",
        seed=0,
        settings={},
        by_domain=(DomainRow("photo", True, 1, 1.0), DomainRow("sketch", False, images, 3 / 7)),
    )


@pytest.mark.parametrize(
    ("published", "queries", "said"),
    [
        (960_192, 1603, "960,192 queries for this run, 599 times as many."),
        (3206, 1603, "3,206 queries for this run, 2 times as many."),
        (2000, 1603, "2,000 queries for this run."),
        (640, 1603, "640 queries for this run, fewer than the 1,603 that it bought."),
        (640, 0, "640 queries for this run."),
        (1, 3, "1 query for this run, fewer than the 3 that it bought."),
    ],
)
def test_times_as_many_is_said_where_it_is_more(published: int, queries: int, said: str) -> None:
    bought = Purchase(queries, 0, 10, "EUR", published_queries=published)
    assert said in cost_text(bought, None)


def test_one_of_a_kind_is_one() -> None:
    text = cost_text(_report().purchase, None) + cost_text(None, LocalAnswers(1, 1, online=False))
    for said in ("(1 image, 1 text)", "bought 1 more query", "about 1 test image as well", "1 view and 1 text"):
        assert said in text
    page = _report().to_markdown()
    assert "Trained on 1 image of photo." in page
    assert "on 1 other image of the same domain." in page
    assert re.findall(r"\b1 \w+s\b", text + page.replace("1 says", "")) == []


def test_few_images_are_counted_and_many_are_compared_in_points() -> None:
    page = _report().to_markdown()
    assert "**VL2V-ADiP reaches 3 of 7 images right on sketch**, a domain that it never saw (ERM: 2)." in page
    assert "points" not in page
    assert "+14.3 points against ERM" in _report(700).to_markdown()


def test_the_interval_of_few_images_is_said() -> None:
    assert "95 % interval of VL2V-ADiP on these images: 15.8 % to 75.0 %." in _report().to_markdown()


def test_the_calibration_of_few_images_is_left_out() -> None:
    assert "calibration" not in _report(99).to_markdown().replace("selection and calibration", "")
    assert "| calibration error | uncalibrated |" in _report(100).to_markdown()


def test_one_domain_has_no_mean_and_equal_ones_no_worst() -> None:
    page = _report().to_markdown()
    assert "*mean*" not in page
    assert "*worst: sketch*" in page
    equal = replace(_report(), by_domain=(DomainRow("a", True, 1, 1.0), DomainRow("b", True, 1, 1.0)))
    assert "*mean*" in equal.to_markdown()
    assert "worst" not in equal.to_markdown()


def test_one_step_is_no_range() -> None:
    last = LastStage((0, 0), "descending", {"swad": 1.0})
    assert "SWAD averages step 0 alone of the last stage" in replace(_report(), last_stage=last).to_markdown()


def test_a_sweep_of_one_seed_names_its_sum_once() -> None:
    sweep = SweepReport(
        *("photos", ("sketch",), (0,), "tiny", "tiny", "1"),
        outcomes=(Outcome("ERM", "sketch", 0, 0.5, 0.5, 0.5),),
        teacher_target_in={},
        purchase=SharedPurchase(1, 1, 10, "EUR"),
        queries={},
        published_queries=1,
    )
    assert "1 query for one seed of all targets, fewer than the 2 that it bought." in sweep.cost()
    more = replace(sweep, seeds=(0, 1), published_queries=4)
    assert "4 queries for one seed of all targets, 8 for all 2, 4 times as many." in more.cost()
