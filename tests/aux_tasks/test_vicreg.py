"""VICReg against loops, term by term, and what a collapse costs."""

import math

import pytest
import torch
from aux_help import generator, noise
from view_help import SHAPE, B, array, collapse, loss_of, move, moved_by_backward, next_views, tiny

WIDTH = 4


@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (2.0, 3.0, 5.0)])
def test_the_loss_against_loops(weights):
    names = ("invariance", "variance", "covariance")
    task, encoder = tiny("vicreg", hidden=7, width=WIDTH, **dict(zip(names, weights, strict=True)))
    move(task)
    obs = noise(B, *SHAPE)
    a, b = (array(task.head(encoder(view))) for view in next_views(task, obs))
    distance = [sum((a[n, d] - b[n, d]) ** 2 for d in range(WIDTH)) / WIDTH for n in range(B)]
    hinge = redundancy = 0.0
    for half in (a, b):
        centred = half - half.mean(0)
        for i in range(WIDTH):
            variance = sum(centred[n, i] ** 2 for n in range(B)) / (B - 1)
            hinge += max(0.0, 1 - math.sqrt(variance + 1e-4)) / WIDTH / 2
            for j in range(WIDTH):
                covariance = sum(centred[n, i] * centred[n, j] for n in range(B)) / (B - 1)
                redundancy += covariance**2 / WIDTH if i != j else 0
    expected = [weights[0] * distance[n] + weights[1] * hinge + weights[2] * redundancy for n in range(B)]
    assert loss_of(task, obs, encoder).loss.tolist() == pytest.approx(expected, rel=1e-3, abs=1e-6)


def test_one_point_costs_the_variance_and_varied_agreement_without_redundancy_nothing():
    task, encoder = tiny("vicreg", variance=3.0)
    collapse(task)
    output = loss_of(task, noise(B, *SHAPE), encoder)
    torch.testing.assert_close(output.loss, torch.full((B,), 3 * 0.99))
    assert float(output.metrics["std"]) == pytest.approx(0.01)
    assert float(output.metrics["accuracy"]) == pytest.approx(1 / B)
    best = torch.linalg.qr(torch.cat([torch.ones(16, 1), torch.randn(16, WIDTH, generator=generator())], 1))[0][:, 1:]
    output = task.compare(best * 15**0.5, best * 15**0.5)
    torch.testing.assert_close(output.loss, torch.zeros(16), atol=1e-5, rtol=0)
    assert float(output.metrics["accuracy"]) == 1


def test_encoder_and_expander_learn_also_from_a_point():
    task, encoder = tiny("vicreg")
    learned = moved_by_backward(task, encoder, noise(B, *SHAPE))
    assert {"encoder.trunk.weight", "encoder.neck.weight", "head.0.weight", "head.6.weight"} <= learned
    point = torch.zeros(B, WIDTH, requires_grad=True)
    task.compare(point, point).loss.sum().backward()
    assert point.grad.isfinite().all()
