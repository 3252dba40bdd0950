"""DeepMDP against a loop over samples, and which way its gradients go."""

import numpy as np
import pytest
import torch
from aux_help import make_setting, make_task, tiny_encoder
from control_help import SHAPE, A, B, Z, action_array, array, slow_likelihood, slow_mlp, slow_prediction, transitions
from test_latent_models import slow_mmd

CHOICES = [
    ("deterministic", "wasserstein"),
    ("deterministic", "likelihood"),
    ("deterministic", "mmd"),
    ("gaussian", "likelihood"),
    ("gaussian", "mmd"),
    ("ensemble", "likelihood"),
]


def deepmdp(encoder, *, continuous: bool = False, **options):
    setting = make_setting(encoder, num_actions=None if continuous else A, action_dim=A)
    return make_task("deepmdp", encoder, setting, hidden=6, members=2, reward_weight=0.5, **options)


def huber(error: float) -> float:
    return error**2 / 2 if abs(error) < 1 else abs(error) - 0.5


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(("model", "distance"), CHOICES)
def test_the_loss_against_a_loop(model, distance, continuous):
    encoder, batch = tiny_encoder(SHAPE, Z), transitions(continuous=continuous)
    task = deepmdp(encoder, continuous=continuous, model=model, distance=distance)
    with torch.no_grad():
        output = task.loss(batch, encoder(batch.obs), encoder)
    latent, target, action = array(encoder(batch.obs)), array(encoder(batch.next_obs)), action_array(batch)
    squared = {"transition": [], "reward": []}
    for i in range(B):
        each = slow_prediction(task.transition.members, latent[i], action[i], model)
        distances = {
            "wasserstein": lambda m, _, y: np.sqrt(sum((m - y) ** 2)),
            "likelihood": lambda m, s, y: slow_likelihood([(m, s)], y),
            "mmd": slow_mmd,
        }
        expected = np.mean([distances[distance](m, s, target[i]) for m, s in each])
        error = slow_mlp(task.reward, np.concatenate([latent[i], action[i]]))[0] - float(batch.reward[i])
        assert float(output.loss[i]) == pytest.approx(expected + 0.5 * huber(error), rel=1e-4, abs=1e-5)
        squared["transition"].append((np.mean([m for m, _ in each], axis=0) - target[i]) ** 2)
        squared["reward"].append(error**2)
    for name, values in squared.items():
        assert float(output.metrics[f"{name}_error"]) == pytest.approx(np.mean(values), rel=1e-4)
    assert float(output.metrics["reward_baseline"]) == pytest.approx(array(batch.reward).var(), rel=1e-4)
    assert float(output.metrics["transition_baseline"]) == pytest.approx(target.var(0).mean(), rel=1e-4)


def test_the_next_latent_has_no_gradient():
    encoder, batch = tiny_encoder(SHAPE, Z), transitions()
    task, features = deepmdp(encoder), encoder(batch.obs).detach().requires_grad_()
    output = task.loss(batch, features, encoder)
    output.loss.sum().backward()
    assert features.grad.abs().sum(1).all()
    assert all(p.grad is None for p in encoder.parameters())
    assert all(p.grad is not None and p.grad.any() for p in task.parameters())


def test_on_maps_the_trunk_learns_from_the_present_alone():
    encoder, batch = tiny_encoder(SHAPE, Z), transitions()
    task = deepmdp(encoder, space="maps")
    output = task.loss(batch, torch.empty(0), encoder)
    with torch.no_grad():
        target = encoder.maps(batch.next_obs).flatten(1)
    maps, action = encoder.maps(batch.obs), torch.nn.functional.one_hot(batch.action, A).float()
    distance = (task.transition(maps, action).mean[0] - target).square().sum(1).sqrt()
    error = task.reward(torch.cat([maps.flatten(1), action], 1)).squeeze(1) - batch.reward
    expected = distance + 0.5 * torch.where(error.abs() < 1, error**2 / 2, error.abs() - 0.5)
    torch.testing.assert_close(output.loss, expected)
    trunk = list(encoder.trunk.parameters())
    for got, wanted in zip(
        torch.autograd.grad(output.loss.sum(), trunk), torch.autograd.grad(expected.sum(), trunk), strict=True
    ):
        assert wanted.any()
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_it_reads_one_step_not_the_window():
    encoder, batch = tiny_encoder(SHAPE, Z), transitions()
    assert deepmdp(encoder).reads == {"obs", "features", "action", "reward", "next_obs"}
    assert not torch.equal(batch.next_obs, batch.nstep_obs)  # so that the loops above can tell them apart
    assert not torch.equal(batch.reward, batch.nstep_reward)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "gausian", "distance": "mmd"}, "model must be one of .* did you mean 'gaussian'"),
        ({"distance": "wasserstien"}, "distance must be one of .* did you mean 'wasserstein'"),
        ({"space": "map"}, "space must be one of features, maps, got 'map': did you mean 'maps'"),
        ({"model": "gaussian"}, "would drive the std of model=gaussian to zero: use distance=likelihood"),
        ({"space": "maps", "model": "gaussian", "distance": "mmd"}, "space=maps needs discrete actions and model"),
        ({"space": "maps", "continuous": True}, "space=maps needs discrete actions"),
    ],
)
def test_choices_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        deepmdp(tiny_encoder(SHAPE, Z), **options)
