"""Each method's loss and gradient equal its formula, worked out in NumPy from the definition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from vl2v_client.student.loss.objective import (
    OBJECTIVES,
    Batch,
    feature_mse,
    image_and_text,
    simkd,
    soft_targets,
    vl2lite,
)

Array = NDArray[np.float64]
ROWS, WIDTH, CLASSES, SCALE = 7, 5, 4, 5.0
TOLERANCES = [(torch.float32, 1e-6), (torch.float64, 1e-12)]


def _unit(values: Array) -> Array:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def _batch(dtype: torch.dtype, *, text_head: bool = True) -> Batch:
    """The first view was not bought. Without a text head the outputs are the logits of a linear head."""
    rng = np.random.default_rng(0)
    matrix, labels = _unit(rng.normal(size=(CLASSES, WIDTH))), rng.integers(0, CLASSES, ROWS)
    images, weights = _unit(rng.normal(size=(ROWS, WIDTH))), rng.uniform(0.1, 1, ROWS)
    images[0], weights[0] = 0, 0
    outputs = 2 * rng.normal(size=(ROWS, WIDTH if text_head else CLASSES))

    def tensor(values: Array) -> Tensor:
        return torch.from_numpy(values).to(dtype)

    def by_text(z: Tensor) -> Tensor:
        return SCALE * torch.nn.functional.normalize(z, dim=-1) @ tensor(matrix).T

    return Batch(
        outputs=tensor(outputs).requires_grad_(),
        labels=torch.from_numpy(labels),
        image_targets=tensor(images),
        text_targets=tensor(matrix[labels]),
        image_weights=tensor(weights),
        text_matrix=tensor(matrix),
        logit_scale=SCALE,
        logits_of=by_text if text_head else lambda outputs: outputs,
    )


class Numbers:
    """A batch in NumPy, as the tensors hold it."""

    def __init__(self, batch: Batch) -> None:
        self.z, self.images = _array(batch.outputs), _array(batch.image_targets)
        self.texts, self.matrix = _array(batch.text_targets), _array(batch.text_matrix)
        self.weights, self.labels = _array(batch.image_weights), batch.labels.numpy()
        self.mixed = self.weights[:, None] * self.images + (1 - self.weights[:, None]) * self.texts

    def through_length(self, gradient: Array) -> Array:
        """The gradient by `z` of a function whose gradient by `z / |z|` is given."""
        lengths, direction = np.linalg.norm(self.z, axis=-1, keepdims=True), _unit(self.z)
        return (gradient - (gradient * direction).sum(axis=-1, keepdims=True) * direction) / lengths


def _array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def _softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _cosine(n: Numbers) -> tuple[float, Array]:
    """`-z/|z| . m`, the one-target form of both terms."""
    return -(_unit(n.z) * n.mixed).sum(axis=-1).mean(), n.through_length(-n.mixed) / ROWS


def _feature_mse(n: Numbers) -> tuple[float, Array]:
    """`w |u - img|^2 + (1 - w) |u - txt|^2` of `u = z/|z|`; by `u` that is `2 (u - m)`, and `u` has no length to go."""
    u = _unit(n.z)
    each = n.weights * ((u - n.images) ** 2).sum(-1) + (1 - n.weights) * ((u - n.texts) ** 2).sum(-1)
    return each.mean(), n.through_length(2 * (u - n.mixed)) / ROWS


def _simkd(n: Numbers) -> tuple[float, Array]:
    each = n.weights * ((n.z - n.images) ** 2).sum(-1) + (1 - n.weights) * ((n.z - n.texts) ** 2).sum(-1)
    return each.mean(), 2 * (n.z - n.mixed) / ROWS


def _rise(n: Numbers) -> tuple[float, Array]:
    """By `u`: `-txt`, and of ten times the mean square through the softmax `p`, `M^T (p (d - p . d))`."""
    u = _unit(n.z)
    p, q = _softmax(u @ n.matrix.T), _softmax(n.texts @ n.matrix.T)
    loss = 1 - (u * n.texts).sum(-1) + 10 * ((p - q) ** 2).mean(-1)
    d = 10 * 2 * (p - q) / CLASSES
    by_u = -n.texts + (p * (d - (p * d).sum(-1, keepdims=True))) @ n.matrix
    return loss.mean(), n.through_length(by_u) / ROWS


def _kd_by_logits(n: Numbers, logits: Array) -> tuple[float, Array]:
    """By the logits: `(1 - a) (softmax(s) - y) + a T (softmax(s / T) - softmax(t / T))`."""
    temperature, alpha = 4.0, n.weights[:, None]
    teacher = _softmax(SCALE * n.images @ n.matrix.T / temperature)
    soft, hard, truth = _softmax(logits / temperature), _softmax(logits), np.eye(CLASSES)[n.labels]
    divergence = (teacher * (np.log(teacher) - np.log(soft))).sum(-1)
    loss = (1 - n.weights) * -np.log((hard * truth).sum(-1)) + n.weights * temperature**2 * divergence
    return loss.mean(), ((1 - alpha) * (hard - truth) + alpha * temperature * (soft - teacher)) / ROWS


def _kd_of_linear_head(n: Numbers) -> tuple[float, Array]:
    return _kd_by_logits(n, n.z)


def _kd_of_text_head(n: Numbers) -> tuple[float, Array]:
    loss, by_logits = _kd_by_logits(n, SCALE * _unit(n.z) @ n.matrix.T)
    return loss, n.through_length(SCALE * by_logits @ n.matrix)


def _cross_entropy(n: Numbers) -> tuple[float, Array]:
    p, truth = _softmax(n.z), np.eye(CLASSES)[n.labels]
    return -np.log((p * truth).sum(-1)).mean(), (p - truth) / ROWS


def _cross_entropy_of_text_head(n: Numbers) -> tuple[float, Array]:
    p, truth = _softmax(SCALE * _unit(n.z) @ n.matrix.T), np.eye(CLASSES)[n.labels]
    return -np.log((p * truth).sum(-1)).mean(), n.through_length(SCALE * (p - truth) @ n.matrix) / ROWS


def _vl2lite(n: Numbers) -> tuple[float, Array]:
    """By `u`: `(1 - a) s M^T (p - y) + a / 2 (sign(u - img) / D + T / 2 M^T (q - t) / 0.07)`, softened `q` and `t`."""
    temperature, sharpness, u, a = 2.0, 1 / 0.07, _unit(n.z), n.weights[:, None]
    p, truth = _softmax(SCALE * u @ n.matrix.T), np.eye(CLASSES)[n.labels]
    q, t = (_softmax(sharpness * v @ n.matrix.T / temperature) for v in (u, n.images))
    image = np.abs(u - n.images).mean(-1)
    relation = (t * np.log(t / q)).sum(-1) * temperature**2 / 2
    loss = (1 - n.weights) * -np.log((p * truth).sum(-1)) + n.weights * (image + relation) / 2
    by_relation = temperature / 2 * sharpness * (q - t) @ n.matrix
    by_u = (1 - a) * SCALE * (p - truth) @ n.matrix + a / 2 * (np.sign(u - n.images) / WIDTH + by_relation)
    return loss.mean(), n.through_length(by_u) / ROWS


FORMULAS: dict[str, list[tuple[bool, Callable[[Numbers], tuple[float, Array]]]]] = {
    "image_and_text": [(True, _cosine)],
    "cross_entropy": [(False, _cross_entropy), (True, _cross_entropy_of_text_head)],
    "soft_targets": [(False, _kd_of_linear_head), (True, _kd_of_text_head)],
    "vl2lite": [(True, _vl2lite)],
    "text_distances": [(True, _rise)],
    "feature_mse": [(True, _feature_mse)],
    "simkd": [(True, _simkd)],
}


def test_every_objective_has_a_formula_here() -> None:
    assert FORMULAS.keys() == OBJECTIVES.keys()


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("name", FORMULAS)
def test_loss_and_gradient_equal_the_formula(name: str, dtype: torch.dtype, tolerance: float) -> None:
    for text_head, formula in FORMULAS[name]:
        batch = _batch(dtype, text_head=text_head)
        loss = OBJECTIVES[name](batch)["loss"]
        (gradient,) = torch.autograd.grad(loss, batch.outputs)
        expected_loss, expected_gradient = formula(Numbers(batch))
        assert loss.item() == pytest.approx(expected_loss, abs=tolerance, rel=tolerance)
        np.testing.assert_allclose(_array(gradient), expected_gradient, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", FORMULAS)
def test_no_student_goes_below_the_floor(name: str) -> None:
    text_head, _ = FORMULAS[name][0]
    batch = _batch(torch.float64, text_head=text_head)
    optimizer = torch.optim.LBFGS([batch.outputs], max_iter=300, line_search_fn="strong_wolfe")

    def descend() -> Tensor:
        optimizer.zero_grad()
        loss = OBJECTIVES[name](batch)["loss"]
        loss.backward()
        return loss

    optimizer.step(descend)
    terms = OBJECTIVES[name](batch)
    assert terms["loss"] > terms["floor"] - 1e-9
    if name not in ("cross_entropy", "soft_targets", "vl2lite"):  # whose floors are bounds
        assert terms["loss"].item() == pytest.approx(terms["floor"].item(), abs=1e-6)


def test_the_error_of_unit_vectors_is_the_cosine_again() -> None:
    batch = _batch(torch.float64)
    assert feature_mse(batch)["loss"].item() == pytest.approx(2 + 2 * image_and_text(batch)["loss"].item(), abs=1e-12)


def test_simkd_sees_lengths_and_the_cosine_does_not() -> None:
    batch = _batch(torch.float64)
    longer = replace(batch, outputs=3 * batch.outputs)
    assert image_and_text(longer)["loss"].item() == pytest.approx(image_and_text(batch)["loss"].item(), abs=1e-12)
    assert simkd(longer)["loss"] > simkd(batch)["loss"] + 1


def test_vl2lite_is_at_its_floor_where_a_bought_view_s_output_points_where_the_teacher_s_does() -> None:
    batch = replace(_batch(torch.float64), image_weights=torch.ones(ROWS))
    images = batch.image_targets.clone()
    images[0] = batch.text_targets[0]
    terms = vl2lite(replace(batch, image_targets=images, outputs=3 * images))
    assert terms["floor"] == 0
    assert terms["loss"].item() == pytest.approx(0, abs=1e-12)


def test_kd_learns_nothing_from_a_teacher_that_was_not_asked() -> None:
    batch = _batch(torch.float64, text_head=False)
    unasked = replace(batch, image_targets=torch.zeros_like(batch.image_targets), image_weights=torch.zeros(ROWS))
    expected = torch.nn.functional.cross_entropy(batch.outputs, batch.labels).item()
    assert soft_targets(unasked)["loss"].item() == pytest.approx(expected, abs=1e-12)


def test_vl2lite_is_the_authors_program_s_loss_at_its_mean_share_of_labels() -> None:
    """`mean` of L1Loss and of KLDivLoss over all elements, the latter times `C / 2`, and half of both together."""
    batch = _batch(torch.float64)
    share = torch.full((ROWS,), 15 / 16, dtype=torch.float64)
    u = torch.nn.functional.normalize(batch.outputs, dim=-1)
    image = torch.nn.L1Loss()(u, batch.image_targets)
    student, teacher = (v @ batch.text_matrix.T / 0.07 / 2 for v in (u, batch.image_targets))
    divergence = torch.nn.KLDivLoss(reduction="none")(student.log_softmax(1), teacher.softmax(1)).mean()
    label = torch.nn.functional.cross_entropy(batch.logits_of(batch.outputs), batch.labels)
    expected = label / 16 + 15 / 16 * (image + divergence * 2**2 * CLASSES / 2) / 2
    assert vl2lite(replace(batch, image_weights=share))["loss"].item() == pytest.approx(expected.item(), abs=1e-12)
