"""Latent models and the distances between what they predict, against loops and quadrature."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aux_help import generator
from control_help import A, B, Z, array, slow_likelihood

from aux_tasks.control.models import (
    Gaussian,
    LatentTransition,
    MapTransition,
    action_vector,
    errors,
    mmd,
    negative_log_likelihood,
    wasserstein,
)

E = 2


def gaussian(*, points: bool = False, seed: int = 0) -> Gaussian:
    draw = generator(seed)
    mean = torch.randn(E, B, Z, generator=draw)
    return Gaussian(mean, None if points else torch.rand(E, B, Z, generator=draw) + 0.2)


def members(predicted: Gaussian, i: int) -> list:
    std = torch.zeros_like(predicted.mean) if predicted.std is None else predicted.std
    return [(array(predicted.mean[e, i]), array(std[e, i])) for e in range(E)]


NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


def expected_kernel(shift: float, std: float, width: float) -> float:
    """E exp(-x^2 / (2 width^2)) for x ~ N(shift, std^2), by Gauss-Hermite quadrature."""
    return float((WEIGHTS * np.exp(-((shift + std * NODES) ** 2) / (2 * width**2))).sum() / WEIGHTS.sum())


def slow_mmd(mean, std, target) -> float:
    """E k(x, x') - 2 E k(x, y) + k(y, y), dimension by dimension; the difference of x and x' has variance 2 std^2."""
    total = 0.0
    for width in (0.5 * Z**0.5, Z**0.5, 2 * Z**0.5):
        within = np.prod([expected_kernel(0, 2**0.5 * s, width) for s in std])
        across = np.prod([expected_kernel(m - y, s, width) for m, s, y in zip(mean, std, target, strict=True)])
        total += within - 2 * across + 1
    return total / 3


@pytest.mark.parametrize("points", [False, True])
def test_distances_to_a_target_against_loops(points):
    predicted, target = gaussian(points=points), torch.randn(B, Z, generator=generator(9))
    for i in range(B):
        each, y = members(predicted, i), array(target[i])
        expected = {
            negative_log_likelihood: slow_likelihood(each, y),
            wasserstein: np.mean([np.sqrt(sum((m - y) ** 2)) for m, _ in each]),
            mmd: np.mean([slow_mmd(m, s, y) for m, s in each]),
        }
        for function, value in expected.items():
            assert float(function(predicted, target)[i]) == pytest.approx(value, rel=1e-4), function.__name__


def test_coordinates_are_as_far_apart_as_the_gaussians_in_w2():
    predicted = gaussian()
    mixture = predicted.moments()
    for i in range(B):
        for j in range(B):
            mean = [sum(m[d] for m, _ in members(predicted, k)) / E for k in (i, j) for d in range(Z)]
            var = [
                sum(s[d] ** 2 + m[d] ** 2 for m, s in members(predicted, k)) / E - mean[n * Z + d] ** 2
                for n, k in enumerate((i, j))
                for d in range(Z)
            ]
            bures = [a + b - 2 * (a * b) ** 0.5 for a, b in zip(var[:Z], var[Z:], strict=True)]
            squared = sum((a - b) ** 2 for a, b in zip(mean[:Z], mean[Z:], strict=True)) + sum(bures)
            step = mixture.coordinates()[i] - mixture.coordinates()[j]
            assert float(step.square().sum()) == pytest.approx(squared, rel=1e-4, abs=1e-6)


def test_points_are_their_own_mixture():
    predicted = Gaussian(torch.randn(1, B, Z), None)
    assert torch.equal(predicted.moments().coordinates(), predicted.mean[0][:, None])


def test_a_convolution_of_its_own_predicts_the_maps_after_each_action():
    torch.manual_seed(0)
    model, maps = MapTransition((2, 4, 3), A), torch.randn(B, 2, 4, 3)
    action = torch.arange(B) % A
    predicted = model(maps, action_vector(action, A))
    assert predicted.mean.shape == (1, B, 24)
    for i in range(B):
        block = slice(2 * int(action[i]), 2 * int(action[i]) + 2)
        by_hand = F.conv2d(maps[i : i + 1].double(), model.conv.weight[block].double(), padding=1).flatten()
        by_hand += model.conv.bias[block].double().repeat_interleave(12)
        torch.testing.assert_close(predicted.mean[0, i].double(), by_hand, rtol=1e-4, atol=1e-5)


def test_actions_become_vectors():
    assert action_vector(torch.tensor([[2, 0]]), A).tolist() == [[[0, 0, 1], [1, 0, 0]]]
    box = torch.rand(B, A)
    assert action_vector(box, A) is box


def test_errors_stand_beside_those_of_the_batch_mean():
    predicted, target = torch.randn(B, Z, requires_grad=True), torch.randn(B, Z)
    logged = errors("thing", predicted, target)
    assert float(logged["thing_error"]) == pytest.approx(((array(predicted) - array(target)) ** 2).mean(), rel=1e-5)
    constant = array(target).mean(0)
    assert float(logged["thing_baseline"]) == pytest.approx(((array(target) - constant) ** 2).mean(), rel=1e-5)
    assert not logged["thing_error"].requires_grad


def test_members_differ_and_an_empty_ensemble_is_refused():
    model = LatentTransition(Z, A, kind="ensemble", hidden=6, members=E)
    first, second = model(torch.randn(B, Z), torch.randn(B, A)).mean
    assert not torch.allclose(first, second)
    with pytest.raises(ValueError, match="members must be at least 1, got 0"):
        LatentTransition(Z, A, kind="ensemble", hidden=6, members=0)
