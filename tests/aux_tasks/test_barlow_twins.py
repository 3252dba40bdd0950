"""Barlow Twins against a loop over pairs of features."""

import pytest
import torch
from aux_help import generator, noise
from view_help import SHAPE, B, array, collapse, loss_of, move, next_views, tiny

WIDTH = 4


def standardised(rows):
    return (rows - rows.mean(0)) / (rows.var(0) + 1e-5) ** 0.5


def test_the_loss_against_a_loop():
    task, encoder = tiny("barlow_twins", hidden=7, width=WIDTH, redundancy=0.2)
    move(task)
    obs = noise(B, *SHAPE)
    a, b = (standardised(array(task.head(encoder(view)))) for view in next_views(task, obs))
    expected = agreement = 0.0
    for i in range(WIDTH):
        for j in range(WIDTH):
            correlation = sum(a[n, i] * b[n, j] for n in range(B)) / B
            expected += (1 - correlation) ** 2 if i == j else 0.2 * correlation**2
            agreement += correlation / WIDTH if i == j else 0
    output = loss_of(task, obs, encoder)
    assert output.loss.tolist() == pytest.approx([expected / WIDTH] * B, rel=1e-3)
    assert float(output.metrics["agreement"]) == pytest.approx(agreement, rel=1e-3)
    cosine = (a @ b.T) / (((a**2).sum(1)[:, None] * (b**2).sum(1)) ** 0.5)
    assert float(output.metrics["accuracy"]) == pytest.approx((cosine.argmax(1) == range(B)).mean())


def test_a_constant_costs_one_and_agreement_without_redundancy_nothing():
    task, encoder = tiny("barlow_twins", width=WIDTH)
    best = torch.linalg.qr(torch.cat([torch.ones(16, 1), torch.randn(16, WIDTH, generator=generator())], 1))[0][:, 1:]
    task.embed = lambda *_: torch.cat([best, best]) * 100
    assert float(loss_of(task, noise(16, *SHAPE), encoder).loss[0]) == pytest.approx(0, abs=1e-4)
    task, encoder = tiny("barlow_twins", width=WIDTH)
    collapse(task)
    output = loss_of(task, noise(B, *SHAPE), encoder)
    torch.testing.assert_close(output.loss, torch.ones(B))
    assert float(output.metrics["accuracy"]) == pytest.approx(1 / B)
