"""Prompts and the zero-shot classifier made of their embeddings."""

import numpy as np
import pytest

from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.teacher.classifier import zero_shot_classifier
from vl2v_client.teacher.prompts import PromptTemplateSet


def test_a_class_is_asked_in_every_template_with_spaces() -> None:
    assert PromptTemplateSet().prompts(["alarm_clock"]) == [["a photo of a alarm clock"]]
    both = PromptTemplateSet(("a {class}", "art of the {class}"))
    assert both.prompts(["dog", "cat"]) == [["a dog", "art of the dog"], ["a cat", "art of the cat"]]


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{class} by {artist}",), ("a {}",), ("a {class",)])
def test_a_template_without_exactly_the_class_is_refused(templates: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="template"):
        PromptTemplateSet(templates)


def test_the_classifier_averages_unit_vectors_and_scales_the_average() -> None:
    # Class 0: unit vectors (1, 0) and (0, 1), whatever the lengths 5 and 2; their mean points along (1, 1).
    classifier = zero_shot_classifier([[[5.0, 0.0], [0.0, 2.0]], [[0.0, 3.0], [0.0, 1.0]]])
    half = 2**-0.5
    assert classifier.dtype == np.float32
    np.testing.assert_allclose(classifier, np.array([[half, half], [0.0, 1.0]]), atol=1e-7)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_a_vector_without_direction_is_refused(bad: float) -> None:
    with pytest.raises(DataError, match="zero or not finite"):
        zero_shot_classifier([[[bad, 0.0]]])
