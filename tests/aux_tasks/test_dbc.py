"""DBC against loops over pairs, its stop-gradients against finite differences, and its monitors."""

import numpy as np
import pytest
import torch
from aux_help import generator
from control_help import (
    B,
    Z,
    action_array,
    array,
    made,
    slow_likelihood,
    slow_mlp,
    slow_prediction,
    smooth_l1,
    transitions,
)

from aux_tasks.control.dbc import FORMS
from aux_tasks.control.models import KINDS

GAMMA = 0.8


def dbc(**options):
    return made("dbc", hidden=6, members=2, **options)


def penalty(form: str, error):
    return np.vectorize(smooth_l1)(error) if form == "robust" else error**2


def unit(latent, form: str):
    return latent / np.linalg.norm(latent, axis=1, keepdims=True) if form == "robust" else latent


def slow_pairs(form: str, latent, reward, mean, std):
    """Distances, and what they should be, of each sample's pairs: (B, pairs or dimensions)."""
    partner = torch.randperm(B, generator=generator(2)).tolist()  # the first draw of the task's stream
    actual, wanted = [], []
    for i in range(B):
        for j in range(B) if form == "robust" else [partner[i]]:
            step = [(mean[i][d] - mean[j][d]) ** 2 + (std[i][d] - std[j][d]) ** 2 for d in range(Z)]
            gap = reward[i] - reward[j]
            apart = [latent[i][d] - latent[j][d] for d in range(Z)]
            if form == "paper":
                actual.append(sum(map(abs, apart)))
                wanted.append(abs(gap) + GAMMA * sum(step) ** 0.5)
            elif form == "released":
                actual += [smooth_l1(apart[d]) for d in range(Z)]
                wanted += [smooth_l1(gap) + GAMMA * step[d] ** 0.5 for d in range(Z)]
            else:
                actual.append(1 - latent[i] @ latent[j])
                cosine = mean[i] @ mean[j] / np.sqrt((mean[i] @ mean[i]) * (mean[j] @ mean[j]))
                wanted.append(abs(gap) + GAMMA * (1 - cosine))
    return np.reshape(actual, (B, -1)), np.reshape(wanted, (B, -1))


def slow_moments(task, latent, action, kind: str):
    """Mean and standard deviation (B, Z) of the members' mixture, and each member's own."""
    each = [slow_prediction(task.transition.members, latent[i], action[i], kind) for i in range(B)]
    mean = np.array([np.mean([m for m, _ in members], axis=0) for members in each])
    second = np.array([np.mean([s**2 + m**2 for m, s in members], axis=0) for members in each])
    return mean, np.sqrt(np.maximum(second - mean**2, 0)) * (kind != "deterministic"), each


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("model", KINDS)
@pytest.mark.parametrize("form", FORMS)
def test_the_loss_against_a_loop(form, model, continuous):
    options = {"continuous": continuous, "form": form, "model": model}
    (encoder, task), batch = dbc(**options, bisimulation_weight=0.3), transitions(continuous=continuous)
    with torch.no_grad():
        output = task.loss(batch, encoder(batch.obs), encoder)
    latent, target = unit(array(encoder(batch.obs)), form), unit(array(encoder(batch.next_obs)), form)
    mean, std, each = slow_moments(task, latent, action_array(batch), model)
    actual, wanted = slow_pairs(form, latent, array(batch.reward), mean, std)
    bisimulation = penalty(form, actual - wanted).mean(1)
    for i in range(B):
        models = slow_likelihood(each[i], target[i])
        models += (slow_mlp(task.reward, mean[i])[0] - float(batch.reward[i])) ** 2
        assert float(output.loss[i]) == pytest.approx(0.3 * bisimulation[i] + models, rel=1e-3)
    assert float(output.metrics["bisimulation_error"]) == pytest.approx(np.mean(bisimulation), rel=1e-3)
    correlation = np.corrcoef(actual.ravel(), wanted.ravel())[0, 1]
    assert float(output.metrics["correlation"]) == pytest.approx(correlation, abs=1e-3)
    assert float(output.metrics["latent_std"]) == pytest.approx(latent.std(0).mean(), rel=1e-4)
    assert float(output.metrics["dead_share"]) == 0


def gradients(form: str, weight: float):
    """Of the features and of the models."""
    (encoder, task), batch = dbc(form=form, bisimulation_weight=weight), transitions()
    features = encoder(batch.obs).detach().requires_grad_()
    task.loss(batch, features, encoder).loss.sum().backward()
    return features.grad, [p.grad for p in task.parameters()]


@pytest.mark.parametrize("form", FORMS)
def test_the_models_learn_nothing_from_the_bisimulation_term(form):
    (with_term, models_with), (without, models_without) = gradients(form, 1.0), gradients(form, 0.0)
    assert not torch.allclose(with_term, without)
    assert all(grad.any() and torch.equal(grad, plain) for grad, plain in zip(models_with, models_without, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_both_latents_of_a_pair_learn_and_w2_is_a_constant(form):
    (encoder, task), batch = dbc(form=form), transitions()
    features = array(encoder(batch.obs))
    mean, std, _ = slow_moments(task, unit(features, form), action_array(batch), "gaussian")

    def slow(latent) -> float:  # W2 stays what it was when a latent moves
        actual, wanted = slow_pairs(form, unit(latent, form), array(batch.reward), mean, std)
        return penalty(form, actual - wanted).mean(1).sum()

    expected = np.zeros((B, Z))
    for index in np.ndindex(B, Z):
        nudge = np.zeros((B, Z))
        nudge[index] = 1e-6
        expected[index] = (slow(features + nudge) - slow(features - nudge)) / 2e-6
    actual = array(gradients(form, 1.0)[0] - gradients(form, 0.0)[0])
    np.testing.assert_allclose(actual, expected, rtol=2e-2, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_monitors_of_a_collapsed_encoder_are_zero_and_finite(form):
    encoder, task = dbc(form=form)
    metrics = task.loss(transitions(), torch.ones(B, Z), encoder).metrics
    assert metrics["latent_std"] == 0
    assert metrics["dead_share"] == 1
    assert metrics["correlation"] == pytest.approx(0, abs=1e-3)
    assert all(metric.isfinite() for metric in metrics.values())
