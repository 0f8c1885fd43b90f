"""Scores against counts made by hand, and the target domain that nothing but the report may read."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.client.student_factories import (
    CLASSES,
    SIZE,
    TINY_VIT,
    WIDTH,
    coloured_views,
    fresh_classifier,
    teacher_targets,
)
from vl2v_client.core.errors import DataError
from vl2v_client.data.folder import open_dataset
from vl2v_client.data.images import load_rgb
from vl2v_client.data.rendering import render_view
from vl2v_client.data.splits import split
from vl2v_client.data.view_pixels import canonical_pixels
from vl2v_client.data.views import View
from vl2v_client.evaluation.accuracy import (
    DomainAccuracy,
    calibration_error,
    evaluate,
    fit_temperature,
    log_probabilities,
    match_temperature,
    negative_log_likelihood,
)
from vl2v_client.evaluation.image_predictions import FoundFile, classify_files
from vl2v_client.runs.reporting import score_classifier
from vl2v_client.student.loss.methods import TrainingConfig, vl2v_adip
from vl2v_client.student.model.classifier import StudentBundle
from vl2v_client.student.model.spec import StudentCard
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.training_data import TrainingData, labelled_views
from vl2v_client.teacher.text_classifier import zero_shot_logits


def _logits(predictions: list[int], classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predictions]


def test_accuracy_is_counted_by_domain_and_class() -> None:
    labels = np.array([0, 1, 2, 0, 0])
    result = evaluate(_logits([0, 1, 1, 0, 2]), labels, ["art", "art", "art", "art", "photo"])
    assert result.by_domain == {"art": DomainAccuracy(4, 0.75), "photo": DomainAccuracy(1, 0.0)}
    assert (result.accuracy, result.domain_mean) == (0.6, 0.375)
    assert result.confusion.tolist() == [[2, 0, 1], [0, 1, 0], [0, 1, 0]]


def test_likelihood_by_hand() -> None:
    logits = np.array([[math.log(3), 0.0], [0.0, 0.0]], dtype=np.float32)
    expected = (math.log(4 / 3) + math.log(2)) / 2
    assert negative_log_likelihood(logits, np.array([0, 1])) == pytest.approx(expected, abs=1e-7)


def test_nothing_to_score_is_refused() -> None:
    with pytest.raises(DataError, match="no images"):
        evaluate(_logits([]), np.array([], dtype=np.int64), [])


def test_temperature_undoes_a_scale_and_lowers_the_error() -> None:
    # Two logits 10 apart, right in 300 of 400; half of the one label more, too: best at 10 / T = log(300.5 / 100.5).
    logits = np.tile(np.array([[10.0, 0.0]], dtype=np.float32), (400, 1))
    labels = np.tile([0, 0, 0, 1], 100)
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(10 / math.log(300.5 / 100.5), rel=1e-4)
    assert calibration_error(logits, labels) == pytest.approx(0.25, abs=1e-3)
    assert calibration_error(logits, labels, temperature) == pytest.approx(0.0, abs=1e-3)


def test_a_hold_out_without_an_error_does_not_ask_for_certainty() -> None:
    labels = np.arange(320) % 7
    logits = (8 * np.eye(7)[labels] + np.random.default_rng(0).normal(size=(320, 7))).astype(np.float32)
    assert (logits.argmax(axis=1) == labels).all()
    assert 0.5 < fit_temperature(logits, labels) < 2


def test_a_matched_temperature_undoes_a_scale() -> None:
    logits = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert match_temperature(5 * logits, np.exp(log_probabilities(logits, 2.0))) == pytest.approx(10, rel=1e-3)


def test_zero_shot_logits_are_scaled_cosines() -> None:
    logits = zero_shot_logits(
        np.array([[3.0, 4.0]], dtype=np.float32), np.eye(2, dtype=np.float32), logit_scale=100, logit_bias=-1
    )
    np.testing.assert_allclose(logits, [[59, 79]], rtol=1e-6)


def _card() -> StudentCard:
    return StudentCard(TINY_VIT, SIZE, CLASSES, "VL2V-ADiP", 0, temperature=2.0)


def test_files_are_classified_as_they_were_scored(tmp_path: Path) -> None:
    views = coloured_views(3, views=1, domains=("art",))
    paths = [str(tmp_path / f"{row}.png") for row in range(3)]
    for row, path in enumerate(paths):
        Image.fromarray(views.pixels[row, 0]).save(path)
    bundle = StudentBundle(fresh_classifier(), _card())
    logits = bundle.classifier.logits(views.pixels[:, 0])
    found = list(classify_files(bundle, [FoundFile(path) for path in paths], batch_size=2))
    assert [one.path for one in found] == paths
    exponentials = np.exp(logits.astype(np.float64) / 2)
    expected = exponentials / exponentials.sum(axis=1, keepdims=True)
    np.testing.assert_allclose([one.probabilities for one in found], expected, rtol=1e-4)


def test_a_student_of_version_0_1_is_fed_the_teachers_size_resized(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)).save(path)
    classifier, seen = fresh_classifier(), []
    for view_size in (SIZE, 2 * SIZE):
        card = replace(_card(), view_size=view_size)
        (found,) = classify_files(StudentBundle(classifier, card), [FoundFile(str(path))])
        logits = classifier.logits(render_view(load_rgb(path), View(), view_size)[None])
        assert found.probabilities is not None
        assert np.array_equal(found.probabilities, np.exp(log_probabilities(logits, card.temperature))[0])
        seen.append(found.probabilities.max())
    assert seen[0] != seen[1]


def test_training_and_selection_never_read_the_target_domain(tmp_path: Path) -> None:
    views = coloured_views(10, views=1, domains=("art", "photo", "sketch"))
    for row, (label, domain) in enumerate(zip(views.labels, views.domains, strict=True)):
        path = tmp_path / "data" / domain / CLASSES[label] / f"{row}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if domain == "sketch":
            path.write_bytes(b"reading this file fails")
        else:
            Image.fromarray(views.pixels[row, 0]).save(path)

    parts = split(open_dataset(tmp_path / "data"), target_domain="sketch")
    source = labelled_views(canonical_pixels(parts.train, SIZE), parts.train)
    held = labelled_views(canonical_pixels(parts.validation, SIZE), parts.validation)
    config = TrainingConfig(align_steps=4, distill_steps=4, batch_size=4, evaluate_every=2, device="cpu")
    result = train(vl2v_adip(config), fresh_classifier(), TrainingData(source, held, teacher_targets(source)), config)
    assert 0 <= result.validation.accuracy <= 1
    alone = score_classifier("student", result.classifier, held, None, parts)
    assert teacher_targets(source).vectors.shape == (len(parts.train), 1, WIDTH)
    with pytest.raises(DataError, match="sketch"):
        canonical_pixels(parts.target, SIZE)[:, 0]
    for seed in (3, 4):
        target = coloured_views(10, views=1, domains=("sketch",), seed=seed)
        scored = score_classifier("student", result.classifier, held, target, parts)
        assert (scored.temperature, scored.row.source_validation) == (alone.temperature, alone.row.source_validation)
        assert scored.row.nll != alone.row.nll
