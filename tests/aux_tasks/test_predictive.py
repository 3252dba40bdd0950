"""The predictive task against a loop over samples, which way its gradients go, and what the negatives are for."""

import numpy as np
import pytest
import torch
from aux_help import generator, make_setting, make_task, tiny_encoder
from control_help import SHAPE, A, B, Z, array, clips, dots, dots_encoder, slow_mlp


def predictive(encoder, *, continuous: bool = False, **options):
    setting = make_setting(encoder, num_actions=None if continuous else A, action_dim=A)
    return make_task("predictive", encoder, setting, **{"hidden": 6, **options})


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("horizon_gamma", [0.0, 0.7])
def test_the_loss_against_a_loop(horizon_gamma, continuous):
    encoder, batch = tiny_encoder(SHAPE, Z), clips(continuous=continuous)
    task = predictive(encoder, continuous=continuous, horizon_gamma=horizon_gamma, negative_weight=0.3)
    with torch.no_grad():
        output = task.loss(batch, encoder(batch.obs), encoder)
    now, after = array(encoder(batch.clip[:, 0])), array(encoder(batch.clip[:, 1]))
    action = array(batch.clip_action) if continuous else np.eye(A)[batch.clip_action.numpy()]
    partner = torch.randperm(B, generator=generator(2)).tolist()  # the first draw of the task's stream
    errors, alike = [], []
    for i in range(B):
        goes_on = i not in (2, 3)  # the clips whose episodes end after one step
        target = after[i]
        if goes_on:
            further = slow_mlp(task.transition, np.concatenate([after[i], action[i, 1]]))
            target = (1 - horizon_gamma) * target + horizon_gamma * further
        errors.append((slow_mlp(task.transition, np.concatenate([now[i], action[i, 0]])) - target) ** 2)
        alike.append(np.exp(-np.sqrt(((now[i] - now[partner[i]]) ** 2).sum())))
        assert float(output.loss[i]) == pytest.approx(errors[i].mean() + 0.3 * alike[i], rel=1e-4)
    assert float(output.metrics["prediction_error"]) == pytest.approx(np.mean(errors), rel=1e-4)
    assert float(output.metrics["alike"]) == pytest.approx(np.mean(alike), rel=1e-4)


def test_the_target_is_a_constant_and_both_latents_of_a_pair_learn():
    encoder, batch = tiny_encoder(SHAPE, Z), clips()
    task, features = predictive(encoder), encoder(batch.obs).detach().requires_grad_()
    output = task.loss(batch, features, encoder)
    action = torch.eye(A)[batch.clip_action]
    with torch.no_grad():
        after = encoder(batch.clip[:, 1])
        further = task.transition(torch.cat([after, action[:, 1]], 1))
        constant = after + 0.5 * batch.clip_mask[:, 1:2] * (further - after)
    error = task.transition(torch.cat([features, action[:, 0]], 1)) - constant
    apart = features - features[torch.randperm(B, generator=generator(2))]
    expected = error.square().mean(1) + (-apart.norm(dim=1)).exp()
    moved = [features, *task.parameters()]
    for got, wanted in zip(
        torch.autograd.grad(output.loss.sum(), moved), torch.autograd.grad(expected.sum(), moved), strict=True
    ):
        assert wanted.any()
        torch.testing.assert_close(got, wanted)
    task.loss(batch, features, encoder).loss.sum().backward()
    assert all(p.grad is None for p in encoder.parameters())


def spread(negative_weight: float) -> float:
    """Mean distance of the latents of different dots, nearly none at first, after training on this task alone."""
    encoder, batch = dots_encoder(), dots(steps=2)
    with torch.no_grad():
        encoder.neck.weight *= 1e-3
    setting = make_setting(encoder, num_actions=4, action_dim=4)
    task = make_task("predictive", encoder, setting, hidden=64, negative_weight=negative_weight)
    optimizer = torch.optim.Adam([*encoder.parameters(), *task.parameters()], lr=1e-3)
    for _ in range(150):
        optimizer.zero_grad()
        task.loss(batch, encoder(batch.obs), encoder).loss.mean().backward()
        optimizer.step()
    with torch.no_grad():
        return float(torch.pdist(encoder(batch.obs)).mean())


def test_the_negatives_keep_the_latents_apart():
    assert spread(0.0) < 3  # measured 1.6
    assert spread(1.0) > 5  # 7.3


def test_a_discount_of_one_is_refused():
    with pytest.raises(ValueError, match=r"horizon_gamma must be in \[0, 1\), got 1"):
        predictive(tiny_encoder(SHAPE, Z), horizon_gamma=1)
