"""Inverse dynamics against a loop, for discrete and continuous actions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from aux_help import make_setting, make_task, tiny_encoder
from control_help import SHAPE, A, B, Z, array, slow_mlp, transitions


def inverse(encoder, *, continuous: bool):
    setting = make_setting(encoder, num_actions=None if continuous else A, action_dim=A)
    return make_task("inverse_dynamics", encoder, setting, hidden=6)


@pytest.mark.parametrize("continuous", [False, True])
def test_the_loss_against_a_loop(continuous):
    encoder, batch = tiny_encoder(SHAPE, Z), transitions(continuous=continuous)
    task = inverse(encoder, continuous=continuous)
    output = task.loss(batch, encoder(batch.obs), encoder)
    before, after = array(encoder(batch.obs)), array(encoder(batch.next_obs))
    guesses = np.array([slow_mlp(task.head, np.concatenate([before[i], after[i]])) for i in range(B)])
    action = batch.action.double().numpy()
    for i in range(B):
        if continuous:
            expected = ((guesses[i] - action[i]) ** 2).mean()
        else:
            expected = np.log(np.exp(guesses[i]).sum()) - guesses[i][int(action[i])]
        assert float(output.loss[i]) == pytest.approx(expected, rel=1e-4)
    if continuous:
        r2 = 1 - ((guesses - action) ** 2).sum() / ((action - action.mean(0)) ** 2).sum()
        assert float(output.metrics["r2"]) == pytest.approx(r2, rel=1e-4)
    else:
        assert float(output.metrics["accuracy"]) == pytest.approx((guesses.argmax(1) == action).mean())


@pytest.mark.parametrize("end", ["obs", "next_obs"])
def test_both_ends_of_the_step_train_the_encoder(end):
    encoder, batch = tiny_encoder(SHAPE, Z), transitions()
    features = encoder(batch.obs)
    task = inverse(encoder, continuous=False)
    if end == "next_obs":
        features = features.detach()
    else:
        batch = replace(batch, next_obs=torch.zeros_like(batch.obs))  # black: no gradient for the kernels
    task.loss(batch, features, encoder).loss.sum().backward()
    assert encoder.trunk.weight.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in task.parameters())


@pytest.mark.parametrize("continuous", [False, True])
def test_examples_name_both_actions(continuous):
    encoder, batch = tiny_encoder(SHAPE, Z), transitions(continuous=continuous)
    task = inverse(encoder, continuous=continuous)
    shown = task.examples(batch, encoder)
    output = task.head(torch.cat([encoder(batch.obs), encoder(batch.next_obs)], 1)).detach()
    assert torch.equal(shown.inputs, batch.obs)
    for i in range(B):
        said, was = (output[i], batch.action[i]) if continuous else (output[i].argmax(), batch.action[i])
        words = [" ".join(f"{float(x):+.1f}" for x in v) if continuous else str(int(v)) for v in (said, was)]
        assert [shown.predicted[i], shown.correct[i]] == words


def test_constant_actions_leave_the_metric_finite():
    encoder, batch = tiny_encoder(SHAPE, Z), transitions(continuous=True)
    batch = replace(batch, action=torch.ones(B, A))
    assert inverse(encoder, continuous=True).loss(batch, encoder(batch.obs), encoder).metrics["r2"].isfinite()
