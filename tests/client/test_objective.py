"""The loss and its gradient are the paper's formula; both of its forms agree; its floor is a floor."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.student.loss.objective import Batch, cross_entropy, image_and_text, per_bought


def _unit(values: Tensor) -> Tensor:
    return torch.nn.functional.normalize(values, dim=-1)


def _batch(dtype: torch.dtype, *, count: int = 7, width: int = 5) -> Batch:
    random = torch.Generator().manual_seed(0)

    def draw() -> Tensor:
        return torch.randn(count, width, generator=random, dtype=torch.float64)

    weights = torch.rand(count, generator=random, dtype=torch.float64)
    weights[0] = 0  # one view that was not bought
    images = _unit(draw())
    images[0] = 0
    return Batch(
        outputs=(3 * draw()).to(dtype).requires_grad_(),
        labels=torch.zeros(count, dtype=torch.int64),
        image_targets=images.to(dtype),
        text_targets=_unit(draw()).to(dtype),
        image_weights=weights.to(dtype),
    )


def _part(batch: Batch, rows: list[int]) -> Batch:
    names = ("outputs", "labels", "image_targets", "text_targets", "image_weights")
    return replace(batch, **{name: getattr(batch, name)[rows] for name in names})


def _by_hand(batch: Batch) -> tuple[float, list[list[float]]]:
    """Loss and gradient in plain Python: d cos(z, t) / dz = (t - cos(z, t) z / |z|) / |z| for a unit t."""
    z, weights = batch.outputs.detach().double().tolist(), batch.image_weights.double().tolist()
    images, texts = batch.image_targets.double().tolist(), batch.text_targets.double().tolist()
    loss, gradient = 0.0, []
    for row, weight, image, text in zip(z, weights, images, texts, strict=True):
        length = math.sqrt(sum(value * value for value in row))
        direction = [0.0] * len(row)
        for share, target in ((weight, image), (1 - weight, text)):
            cosine = sum(a * b for a, b in zip(row, target, strict=True)) / length
            loss -= share * cosine / len(z)
            for index, (value, goal) in enumerate(zip(row, target, strict=True)):
                direction[index] -= share * (goal - cosine * value / length) / length / len(z)
        gradient.append(direction)
    return loss, gradient


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_loss_and_gradient_equal_the_formula(dtype: torch.dtype, tolerance: float) -> None:
    batch = _batch(dtype)
    loss = image_and_text(batch)["loss"]
    (gradient,) = torch.autograd.grad(loss, batch.outputs)
    expected_loss, expected_gradient = _by_hand(batch)
    assert loss.item() == pytest.approx(expected_loss, abs=tolerance)
    np.testing.assert_allclose(gradient.double().numpy(), expected_gradient, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_two_terms_equal_one_target(dtype: torch.dtype, tolerance: float) -> None:
    batch = _batch(dtype)
    weights = batch.image_weights[:, None]
    mixed = weights * batch.image_targets + (1 - weights) * batch.text_targets
    two = image_and_text(batch)["loss"]
    one = -(_unit(batch.outputs) * mixed).sum(dim=-1).mean()  # -|m| cos(z, m)
    assert one.item() == pytest.approx(two.item(), abs=tolerance)
    (from_two,), (from_one,) = (torch.autograd.grad(loss, batch.outputs) for loss in (two, one))
    torch.testing.assert_close(from_one, from_two, atol=tolerance, rtol=0)


def test_the_floor_is_reached_along_the_mixed_target_and_nowhere_else() -> None:
    batch = _batch(torch.float64)
    weights = batch.image_weights[:, None]
    mixed = weights * batch.image_targets + (1 - weights) * batch.text_targets
    terms = image_and_text(replace(batch, outputs=9 * mixed))
    assert terms["loss"].item() == pytest.approx(terms["floor"].item(), abs=1e-12)
    away = image_and_text(batch)
    assert away["loss"] > away["floor"]


def test_terms_are_named_and_the_image_term_averages_bought_views_only() -> None:
    batch = _batch(torch.float64)
    terms = image_and_text(batch)
    assert set(terms) == {"loss", "image", "bought", "text", "floor"}
    cosines = (_unit(batch.outputs) * batch.image_targets).sum(dim=-1)[1:]
    means = per_bought({name: term.item() for name, term in terms.items()})
    assert means["image"] == pytest.approx(-cosines.mean().item())
    assert means["text"] == terms["text"].item()


def test_the_image_term_of_parts_averages_to_that_of_the_whole() -> None:
    batch = _batch(torch.float64)
    places = range(len(batch.labels))
    parts = [[place for place in places if place % 2 == side] for side in (0, 1)]
    shares = [len(part) / len(places) for part in parts]
    of_parts = [image_and_text(_part(batch, part)) for part in parts]
    means = {
        name: sum(share * terms[name].item() for share, terms in zip(shares, of_parts, strict=True))
        for name in of_parts[0]
    }
    whole = per_bought({name: term.item() for name, term in image_and_text(batch).items()})
    assert per_bought(means) == pytest.approx(whole)


def test_where_nothing_was_bought_there_is_no_image_term() -> None:
    assert per_bought({"image": 0.0, "bought": 0.0, "loss": -0.3}) == {"image": 0.0, "bought": 0.0, "loss": -0.3}


def test_labels_add_their_cross_entropy_and_its_gradient() -> None:
    batch = replace(_batch(torch.float64), labels=torch.tensor([0, 1, 2, 3, 4, 0, 1]))
    plain, labelled = image_and_text(batch), image_and_text(replace(batch, label_weight=0.3))
    logits = np.exp(batch.outputs.detach().numpy())
    shares = logits / logits.sum(axis=1, keepdims=True)
    right = np.eye(5)[batch.labels.numpy()]
    expected = -np.log((shares * right).sum(axis=1)).mean()
    assert labelled["labels"].item() == pytest.approx(expected, abs=1e-12)
    assert labelled["loss"].item() == pytest.approx(plain["loss"].item() + 0.3 * expected, abs=1e-12)
    (gradient,) = torch.autograd.grad(labelled["loss"] - plain["loss"], batch.outputs)
    np.testing.assert_allclose(gradient.numpy(), 0.3 * (shares - right) / len(right), atol=1e-12)
    assert "labels" not in plain


def test_soft_labels_add_the_divergence_from_the_teacher_where_it_answered() -> None:
    classes = _unit(torch.eye(5, 5, dtype=torch.float64) + 0.1)
    batch = replace(_batch(torch.float64), text_matrix=classes)
    plain, soft = image_and_text(batch), image_and_text(replace(batch, soft_label_weight=0.6))

    def shares(vectors: Tensor) -> NDArray[np.float64]:
        exponentials = np.exp(_unit(vectors).detach().numpy() @ classes.numpy().T / 0.14)
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    teacher, student = shares(batch.image_targets), shares(batch.outputs)
    bought = batch.image_weights.numpy() > 0
    divergences = 2 * (teacher * np.log(teacher / student)).sum(axis=1)[bought]
    assert per_bought({name: term.item() for name, term in soft.items()})["soft"] == pytest.approx(divergences.mean())
    added = 0.6 * (batch.image_weights.numpy()[bought] * divergences).sum() / len(bought)
    assert soft["loss"].item() == pytest.approx(plain["loss"].item() + added, abs=1e-12)
    assert set(soft) == {*plain, "soft"}


def test_cross_entropy_by_hand() -> None:
    nothing = torch.zeros(1, 0)
    batch = Batch(torch.tensor([[math.log(3), 0.0]]), torch.tensor([1]), nothing, nothing, torch.zeros(1))
    assert cross_entropy(batch)["loss"].item() == pytest.approx(math.log(4))
    assert cross_entropy(batch)["floor"].item() == 0
