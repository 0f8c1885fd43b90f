"""Trust in bought answers: by the teacher's agreement with the labels of the training images."""

import numpy as np
import pytest

from vl2v_client.teacher.targets import ImageTargets, borrow_from_same_image, weigh_by_agreement

CLASSIFIER = np.eye(2, dtype=np.float32)
STYLES = [["", "ink"], ["", "ink"], ["", "flat"]]


def _answers(classes: list[list[int]], bought: list[list[bool]]) -> ImageTargets:
    return ImageTargets.of_bought(CLASSIFIER[np.array(classes)], np.array(bought))


def test_an_answer_has_its_styles_agreement_as_weight_and_none_where_it_names_another_class() -> None:
    answers = _answers([[0, 0], [1, 0], [1, 1]], [[True, True], [True, True], [True, True]])
    weighed = weigh_by_agreement(answers, CLASSIFIER, np.array([0, 1, 0]), STYLES)
    two_thirds = pytest.approx(2 / 3)  # of the views without style, one answer of three is wrong
    assert weighed.weights.tolist() == [[two_thirds, 0.5], [two_thirds, 0], [0, 0]]
    assert weighed.vectors is answers.vectors


def test_what_was_not_bought_neither_counts_nor_changes() -> None:
    answers = _answers([[0, 0], [1, 0], [1, 1]], [[True, True], [True, False], [False, False]])
    answers.weights[1, 1] = 0.25  # imputed
    weighed = weigh_by_agreement(answers, CLASSIFIER, np.array([0, 1, 0]), STYLES)
    assert weighed.weights.tolist() == [[1, 1], [1, 0.25], [0, 0]]


def test_the_canonical_answer_alone_is_lent() -> None:
    vectors = np.array([[[1, 0], [0, 1], [0, 0]], [[1, 0], [0, 1], [0, 0]]], dtype=np.float32)
    weights = np.array([[0.9, 0.5, 0], [0, 0.5, 0]], dtype=np.float32)
    lent = borrow_from_same_image(ImageTargets(vectors, weights > 0, weights), lenders=1)
    np.testing.assert_allclose(lent.weights, [[0.9, 0.5, 0.9], [0, 0.5, 0]], rtol=1e-6)
    np.testing.assert_allclose(lent.vectors[0, 2], [1, 0])
    np.testing.assert_allclose(lent.vectors[:, 1], [[0, 1]] * 2)  # its own answer stays
