"""A run's page of made-up figures, with every part that a page can have."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from vl2v_client.evaluation.accuracy import ImagePrediction
from vl2v_client.reports.comparison import ComparedRun, Comparison, comparison_page
from vl2v_client.reports.last_stage import LastStage
from vl2v_client.reports.pages import Purchase
from vl2v_client.reports.report import DomainRow, ReportRow, RunReport
from vl2v_client.reports.run_charts import CurvePoint, EvaluationPoint, StageCurve
from vl2v_client.reports.run_page import RunPage

CLASSES = ("cat", "dog", "owl")


def run_report(images: int = 400) -> RunReport:
    return RunReport(
        dataset="photos",
        class_names=CLASSES,
        source_domains=("art", "photo"),
        target_domain="sketch",
        counts={"train": 1600, "validation": 400, "target": images},
        rows=(
            ReportRow("zero-shot teacher", 0.98, 0.95, 0.94),
            ReportRow("chance", 1 / 3, 1 / 3, 1 / 3),
            ReportRow("majority class", 0.4, 0.38, 0.38, note="cat: art 40.0 %"),
            ReportRow("ERM", 0.97, 0.80, 0.80, 1.5, 0.2, "rate 0.001", 0.3),
            ReportRow("VL2V-ADiP", 0.99, 0.83, 0.82, 0.6, 0.03),
        ),
        purchase=Purchase(1600, 3, 1_603_000, "EUR", test_images=400, published_queries=960_192),
        teacher="tiny-clip",
        student="tiny at 64 px",
        seed=0,
        settings={"image_weight": "0.5"},
        confusion=[[120, 10, 3], [20, 112, 2], [15, 18, 100]],
        student_folder="student",
        by_domain=(DomainRow("art", True, 200, 1.0), DomainRow("sketch", False, images, 0.83)),
        last_stage=LastStage((20, 60), "valley", {"swad": 0.9, "best": 0.91, "last": 0.89}),
    )


def predictions(images: int = 400) -> list[ImagePrediction]:
    """ERM errs wherever the student does, and on twelve more images; the teacher was not asked."""
    found = []
    for classifier, right in (("ERM", round(0.8 * images)), ("VL2V-ADiP", round(0.83 * images))):
        for number in range(images):
            said = "cat" if number < right else "dog"
            share = 0.5 + 0.49 * number / images
            found.append(ImagePrediction(classifier, f"sketch/cat/{number:03}.png", "cat", said, share))
    return found


def stage_curve(name: str = "distill", *, averaged: tuple[int, int] | None = None) -> StageCurve:
    steps = range(1, 101, 5)
    points = tuple(CurvePoint(step, -0.9 + 1 / step, 0.05 + 1 / step) for step in steps)
    evaluations = tuple(EvaluationPoint(step, 0.5 + step / 250, 1 / step) for step in (1, 50, 100))
    return StageCurve(name, points, evaluations, averaged)


def jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 99, dtype=np.uint8)).save(buffer, format="JPEG")
    return buffer.getvalue()


def whole_page() -> RunPage:
    page = RunPage(run_report(), predictions(), (stage_curve("align"), stage_curve(averaged=(20, 60))))
    return replace(page, pictures={one.path: jpeg() for one in page.mistakes()[1:]})


def comparison_of_two() -> str:
    """The page of the run beside one with a tenth of its queries."""
    fewer = replace(run_report(), purchase=Purchase(160, 3, 163_000, "EUR"), settings={"image_weight": "0.4"})
    return comparison_page(Comparison((ComparedRun("all", run_report()), ComparedRun("a tenth", fewer))))


def page_of_classes(count: int) -> RunPage:
    """The page of a run with many classes."""
    names = tuple(f"class number {number}" for number in range(count))
    confusion = [[7 if label == said else 1 for said in range(count)] for label in range(count)]
    return RunPage(replace(run_report(), class_names=names, confusion=confusion), predictions())
