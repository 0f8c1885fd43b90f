"""Prompts and the zero-shot classifier made of their embeddings."""

import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from support.client.buying_bench import draw_pictures
from support.client.client_shell import ClientShell
from support.client.fake_vendor import FakeVendor, served
from vl2v_client.core.errors import DataError, UsageError
from vl2v_client.teacher.text_classifier import PromptTemplateSet, zero_shot_classifier
from vl2v_contract.identity import text_sha


def test_a_class_is_asked_in_every_template_with_spaces() -> None:
    assert PromptTemplateSet().prompts(["alarm_clock"]) == [["a photo of a alarm clock"]]
    both = PromptTemplateSet(("a {class}", "art of the {class}"))
    assert both.prompts(["dog", "cat"]) == [["a dog", "art of the dog"], ["a cat", "art of the cat"]]


@pytest.mark.parametrize(
    "templates",
    [
        (),
        ("a photo",),
        ("{class} by {artist}",),
        ("a {}",),
        ("a {class",),
        ("a {class!r}",),
        ("a {class:s}",),
        ("{{class}} of {class}",),
        ("a {class}", "a {class}"),
    ],
)
def test_a_template_without_exactly_the_class_is_refused(templates: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="template"):
        PromptTemplateSet(templates)


def test_classes_of_the_same_prompts_are_refused_by_name() -> None:
    with pytest.raises(DataError, match="'ice boat' and 'ice_boat' have the same prompts"):
        PromptTemplateSet().prompts(["car", "ice boat", "ice_boat"])


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


def test_a_run_asks_each_class_in_every_template_and_its_evaluation_again(vendor: FakeVendor, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for domain in ("art", "photo", "sketch"):
        for name in ("cat", "dog"):
            draw_pictures(tmp_path / "data" / domain / name, 5)
    named = ("--prompt", "a drawing of a {class}", "--prompt", "a {class}")
    with served(vendor) as url:
        shell = ClientShell(url, tmp_path, "--target-domain", "sketch")
        planned = shell.json("plan", "--views", "1", *named)
        report = shell.distill("--views", "1", *named)
        assert planned["texts"] == report["purchase"]["texts"] == 4
        assert vendor.billed_units == planned["new_queries"]
        assert shell.read("config.json")["data"]["prompts"] == list(named[1::2])
        texts = [[text_sha(template.replace("{class}", name)) for template in named[1::2]] for name in ("cat", "dog")]
        expected = zero_shot_classifier([[vendor.vector(sha) for sha in of_class] for of_class in texts])
        head = load_file(shell.run_folder / "student" / "student.safetensors")["classifier"]
        np.testing.assert_allclose(head, expected, atol=1e-3)  # vectors are sold in float16
        other = shell.try_distill("--views", "1", *named[:2]).exception
        assert "--prompt was" in str(other)
        assert shell.run("evaluate", str(shell.run_folder), "--teacher", "--yes").exit_code == 0
        offers = shell.json("pilot", *named, "--queries", "30", "--yes")["offers"]
        assert "--prompt 'a drawing of a {class}' --prompt 'a {class}'" in offers[0]["options"]
        billed = vendor.billed_units
        for offer in offers:
            assert shell.json("plan", *shlex.split(offer["options"]))["new_queries"] == offer["new"]
        assert vendor.billed_units == billed
        refused = shell.run("plan", "--prompt", "a photo").exception
        assert "must hold {class} and nothing else in braces" in str(refused)
