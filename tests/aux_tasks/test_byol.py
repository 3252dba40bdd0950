"""BYOL against a loop, its copies, and the collapse that predictor and stopped gradient prevent."""

import numpy as np
import pytest
import torch
from aux_help import batch_of, generator, noise, tiny_encoder
from pretext_help import build_task, measure, train_on
from view_help import SHAPE, B, loss_of, move, next_views, sixteen, tiny, unit


def test_the_loss_against_a_loop():
    task, encoder = tiny("byol", hidden=7, width=4)
    move(task.head)
    move(encoder)
    obs = noise(B, *SHAPE)
    views = next_views(task, obs)  # each by itself, from the pixels to the prediction
    predicted = np.concatenate([unit(task.predictor(task.head(encoder(view)))) for view in views])
    target = np.concatenate([unit(task.target_head(task.target_encoder(view))) for view in views])
    output = loss_of(task, obs, encoder)
    assert not task.target(torch.cat([*views]).float().requires_grad_()).requires_grad
    hits = 0
    for i in range(B):
        expected = 2 - 2 * predicted[i] @ target[B + i] + 2 - 2 * predicted[B + i] @ target[i]
        assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4)
        similar = [predicted[i] @ target[B + j] for j in range(B)]
        hits += similar[i] == max(similar)
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / B)
    assert float(output.metrics["chance"]) == pytest.approx(1 / B)


def spread_after(steps: int, *, guarded: bool) -> dict[str, float]:
    encoder, train = tiny_encoder((1, 16, 16), 32), sixteen(0, 500)
    task = build_task("byol", encoder, views="digits", hidden=64)
    if not guarded:
        task.predictor = torch.nn.Identity()
        task.target = lambda pixels: task.embed(pixels, encoder)

    def draw(step):
        return batch_of(train[torch.randint(500, (64,), generator=generator(step))])

    train_on(task, encoder, draw, steps=steps, lr=3e-3)
    return measure(task, encoder, batch_of(sixteen(1000, 1064)))


def test_without_predictor_and_stopped_gradient_it_collapses_and_the_spread_tells():
    assert spread_after(60, guarded=True)["spread"] > 0.5
    naive = spread_after(60, guarded=False)
    assert naive["spread"] < 0.1
    assert naive["loss"] < 0.05  # and the loss looks solved
