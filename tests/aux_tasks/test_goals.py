"""Goal spaces from latents and from time: losses against loops, imagined goals, rewards, and that they are learned."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from aux_help import batch_of, generator, make_setting, make_task, noise
from control_help import SHAPE, B, array, cross_entropy, dots, made, slow_mlp, transitions
from pretext_help import measure, train_on
from torch import Tensor, nn

from aux_tasks.parts.decoder import centred
from encoders import Encoder
from replay import Batch

L = 3


def batch_of_episodes() -> Batch:
    return replace(transitions(), context=noise(B, *SHAPE, seed=4), future=noise(B, *SHAPE, seed=5))


def move(*modules: nn.Module) -> None:
    """Change modules, so that their momentum copies are others."""
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter += 0.1 * torch.rand_like(parameter)


# --- RIG and CC-RIG ---


def slow_error(decoded, obs: Tensor, foreground: float) -> list[float]:
    target = (obs.double().numpy() + 0.5) / 256 - 0.5
    mean, errors = target.mean(0), []
    for x, y in zip(target, decoded, strict=True):
        deviation = (x - mean) ** 2
        weight = 1 - foreground + foreground * deviation / deviation.mean()
        errors.append(float((weight * (x - y) ** 2).sum() / weight.sum()))
    return errors


def slow_posterior(posterior, features, eps):
    """Latents and KL (B,) of features (B, Z)."""
    latents, divergence = [], []
    for row, e in zip(features, eps, strict=True):
        mean = array(posterior.mean.weight) @ row + array(posterior.mean.bias)
        raw = array(posterior.spread.weight) @ row + array(posterior.spread.bias)
        variance = 1e-3 * (1 + np.exp(raw))  # exp of log 1e-3 + softplus
        latents.append(mean + np.sqrt(variance) * e)
        divergence.append(sum((m**2 + v - 1 - np.log(v)) / 2 for m, v in zip(mean, variance, strict=True)))
    return np.array(latents, np.float32), np.array(divergence)


@pytest.mark.parametrize("foreground", [0.0, 0.9])
def test_rig_against_a_loop(foreground):
    encoder, task = made("rig", latent_dim=L, beta=0.02, channels=2, foreground=foreground)
    batch, eps = transitions(), torch.empty(B, L).normal_(generator=task.generator.clone_state())
    latent, kl = slow_posterior(task.posterior, array(encoder(batch.obs)), array(eps))
    expected = slow_error(array(task.decoder(torch.from_numpy(latent))), batch.obs, foreground) + 0.02 * kl
    output = task.loss(batch, encoder(batch.obs), encoder)
    np.testing.assert_allclose(array(output.loss), expected, rtol=1e-4)
    assert float(output.metrics["kl_per_dim"]) == pytest.approx(kl.mean() / L, rel=1e-4)


def test_cc_rig_against_a_loop():
    encoder, task = made("cc_rig", latent_dim=L, context_dim=2, beta=0.02, channels=2)
    batch, eps = batch_of_episodes(), torch.empty(B, L).normal_(generator=task.generator.clone_state())
    now, first = array(encoder(batch.obs)), array(encoder(batch.context))
    latent, kl = slow_posterior(task.posterior, np.concatenate([now, first], 1), array(eps))
    looks = task.appearance[:4](centred(batch.context)).flatten(2).amax(2)
    code = task.code(torch.cat([encoder(batch.context), looks], 1)).detach()
    errors = [
        slow_error(array(task.decoder(torch.cat([torch.from_numpy(latent), code], 1))), batch.obs, 0.9),
        slow_error(array(task.context_decoder(code)), batch.context, 0.9),
    ]
    output = task.loss(batch, encoder(batch.obs), encoder)
    np.testing.assert_allclose(array(output.loss), np.sum(errors, 0) + 0.02 * kl, rtol=1e-4)


def test_the_likelihood_of_a_picture_is_that_of_an_integral(monkeypatch):
    monkeypatch.setattr("aux_tasks.goals.rig.DRAWS", 4000)
    encoder, task = made("rig", latent_dim=1, beta=0.02, channels=2)
    obs, z = noise(B, *SHAPE), torch.linspace(-6, 6, 2001)[:, None]
    with torch.no_grad():
        task.posterior.spread.bias += 6.9  # wide enough to cover the prior
        decoded = array(task.decoder(z))
        mean, found = task.likelihood(obs, encoder, 3)
    torch.testing.assert_close(mean, task.embed(obs[:3], encoder))
    target, expected = centred(obs).double().numpy(), []
    for i in range(3):
        deviation = (target[i] - target.mean(0)) ** 2
        weight = 0.1 + 0.9 * deviation / deviation.mean()
        error = (weight * (decoded - target[i]) ** 2).sum((1, 2, 3)) / weight.sum()
        expected.append(np.log(np.mean(np.exp(-error / 0.02 - array(z)[:, 0] ** 2 / 2))))
    difference = array(found) - expected  # a constant that all share
    np.testing.assert_allclose(difference, difference.mean(), atol=0.05)


def test_skewed_goals_are_latents_of_rare_pictures_more_often():
    _, task = made("rig", latent_dim=L, channels=2, skew=-1.0)
    nowhere = torch.zeros(1000, L)
    assert abs(float(task.imagine(nowhere).std()) - 1) < 0.1  # of the prior: nothing is seen yet
    with torch.no_grad():
        task.seen[:3] = torch.eye(L)
        task.log_likelihood[:3] = torch.tensor([0.8, 0.1, 0.1]).log()
        task.written += 3
    shares = task.imagine(torch.zeros(20_000, L)).mean(0).tolist()
    np.testing.assert_allclose(shares, [1 / 17, 8 / 17, 8 / 17], atol=0.02)


def test_what_was_seen_is_kept_in_a_ring():
    encoder, task = made("rig", latent_dim=L, channels=2, skew=-0.5)
    batch = transitions()
    for _ in range(2):
        task.after_step(batch, encoder)
    torch.testing.assert_close(task.seen[: 2 * B], task.embed(batch.obs, encoder).repeat(2, 1))
    assert task.written == 2 * B
    assert not task.seen[2 * B :].any()


def test_cc_rig_imagines_within_the_scene_and_rewards_without_it():
    encoder, task = made("cc_rig", latent_dim=L, context_dim=2, channels=2)
    batch = batch_of_episodes()
    goals = task.embed(batch.obs, encoder, batch.context)
    imagined = task.imagine(goals)
    assert torch.equal(imagined[:, L:], goals[:, L:])
    assert (imagined[:, :L] != goals[:, :L]).all()
    elsewhere = torch.cat([goals[:, :L], goals[:, L:] + 5], 1)
    assert not task.reward(goals, elsewhere).any()
    torch.testing.assert_close(task.reward(goals, imagined), -(goals - imagined)[:, :L].norm(dim=1))
    assert task.decode(imagined).shape == batch.obs.shape
    with pytest.raises(ValueError, match="beside the first of its episode"):
        task.embed(batch.obs, encoder)


# --- distances in time ---


@pytest.mark.parametrize("expectile", [0.5, 0.9])
def test_the_temporal_distance_against_a_loop(expectile):
    encoder, task = made("temporal_distance", latent_dim=L, hidden=6, expectile=expectile)
    move(encoder, task.psi)
    task.generator.manual_seed(0)
    batch = batch_of_episodes()
    elsewhere = (torch.rand(B, generator=task.generator.clone_state()) < 0.375).tolist()
    assert 0 < sum(elsewhere) < B
    now, after, future = (array(encoder(obs)) for obs in (batch.obs, batch.next_obs, batch.future))
    before, behind, aim = (array(task.target_encoder(obs)) for obs in (batch.obs, batch.next_obs, batch.future))
    assert not np.allclose(after, behind)

    def value(psi, s, g) -> float:
        return -float(np.linalg.norm(slow_mlp(psi, s) - slow_mlp(psi, g)))

    losses, signs = [], set()
    for i in range(B):
        j = (i - 1) % B if elsewhere[i] else i
        target = -1 + 0.8 * value(task.target_psi, behind[i], aim[j])
        worse = target < value(task.target_psi, before[i], aim[j])
        signs.add(worse)
        losses.append((1 - expectile if worse else expectile) * (target - value(task.psi, now[i], future[j])) ** 2)
    output = task.loss(batch, encoder(batch.obs), encoder)
    np.testing.assert_allclose(array(output.loss), losses, rtol=1e-3)
    closer = [value(task.psi, now[i], future[i]) > value(task.psi, now[i], future[i - 1]) for i in range(B)]
    assert float(output.metrics["accuracy"]) == pytest.approx(np.mean(closer))


def test_contrastive_goals_against_a_loop():
    encoder, task = made("contrastive_goal", latent_dim=L, hidden=6)
    batch = batch_of_episodes()
    now, future = ([slow_mlp(task.psi, row) for row in array(encoder(obs))] for obs in (batch.obs, batch.future))
    energy = np.array([[-np.linalg.norm(s - g) for g in future] for s in now])
    expected = [
        (cross_entropy(energy[i], i) + cross_entropy(energy[:, i], i) + 0.1 * np.log(np.exp(energy[i]).sum()) ** 2) / 2
        for i in range(B)
    ]
    output = task.loss(batch, encoder(batch.obs), encoder)
    np.testing.assert_allclose(array(output.loss), expected, rtol=1e-3)
    assert float(output.metrics["accuracy"]) == pytest.approx(np.mean(energy.argmax(1) == np.arange(B)))


@pytest.mark.parametrize(("name", "unit"), [("rig", 1), ("temporal_distance", 0.2), ("contrastive_goal", 0.2)])
def test_rewards_are_distances_in_units_that_critics_can_fit(name, unit):
    _, task = made(name)
    achieved, desired = torch.randn(2, 5, task.goal_dim)
    distance = np.sqrt(((array(achieved) - array(desired)) ** 2).sum(1))
    np.testing.assert_allclose(array(task.reward(achieved, desired)), -unit * distance, rtol=1e-5)


@pytest.mark.parametrize("name", ["temporal_distance", "contrastive_goal"])
def test_a_space_without_a_prior_says_that_it_cannot_imagine(name):
    _, task = made(name)
    with pytest.raises(ValueError, match=r"cannot imagine goals: goal.source=env"):
        task.imagine(torch.zeros(2, task.goal_dim))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("rig", {"latent_dim": 0}, "latent_dim must be at least 1"),
        ("rig", {"beta": 0.0}, "beta must be above 0"),
        ("rig", {"skew": 0.5}, "skew must be in"),
        ("cc_rig", {"context_dim": 0}, "context_dim must be at least 1"),
        ("temporal_distance", {"expectile": 0.3}, "expectile must be in"),
    ],
)
def test_what_is_out_of_range_is_refused(name, options, message):
    with pytest.raises(ValueError, match=message):
        made(name, **options)


# --- they are learned, from content alone ---

OPTIONS = {
    "rig": {"channels": 8, "beta": 1e-5, "latent_dim": 8},
    "cc_rig": {"channels": 8, "beta": 1e-5, "latent_dim": 8},
    "temporal_distance": {"hidden": 64, "momentum": 0.9},
    "contrastive_goal": {"hidden": 64},
}
SOLVED = {"rig": 0.3, "cc_rig": 0.3, "temporal_distance": 1.0, "contrastive_goal": 0.9}
CHANCE = {"rig": 0.0, "cc_rig": 0.0, "temporal_distance": 0.0, "contrastive_goal": 1 / 64}


def learned(name: str, steps: int, *, destroyed: bool = False, cut: bool = False) -> float:
    """1 or more when solved, after training on 64 samples; `destroyed` pairs them anew in each step."""
    torch.manual_seed(0)
    encoder = Encoder(nn.Sequential(nn.Conv2d(2, 16, 4, stride=4), nn.ReLU()), nn.Linear(256, 32), (2, 16, 16))
    with torch.no_grad():
        encoder.neck.weight *= 1e-5  # features that say little, until they are learned
    encoder.requires_grad_(not cut)
    task = make_task(name, encoder, make_setting(encoder, num_actions=4, action_dim=4), **OPTIONS[name])
    whole, draw = dots(), generator(4)
    # One first picture for all: from others, CC-RIG's own filters would know each sample by heart.
    whole = replace(whole, context=whole.obs[:1].expand_as(whole.obs).contiguous(), future=whole.clip[:, 2])

    def batch(_: int) -> Batch:
        if not destroyed:
            return whole
        context, other = whole.context[torch.randperm(64, generator=draw)], torch.randperm(64, generator=draw)
        return replace(whole, context=context, future=whole.future[other], next_obs=whole.next_obs[other])

    if destroyed and "rig" in name:
        mean = task.posterior.forward
        task.posterior.forward = lambda x: mean(x[torch.randperm(len(x), generator=draw)])
    train_on(task, encoder, batch, steps=steps, lr=3e-3)
    found = measure(task, encoder, batch(0))
    if name == "temporal_distance":
        return found["other_distance"] - found["distance"]  # steps
    return 1 - found["error_ratio"] if "rig" in name else found["accuracy"]


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_64_samples_are_learned_and_not_without_the_gradient(name):
    assert learned(name, 250) > SOLVED[name]
    assert learned(name, 250, cut=True) < SOLVED[name] - 0.15


@pytest.mark.parametrize("name", OPTIONS)
def test_nothing_is_learned_from_destroyed_content(name):
    assert learned(name, 60, destroyed=True) < CHANCE[name] + 0.15


# --- skewed goals ---


def mostly_left(count: int, rare: float, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """A dot (B, 1, 16, 16) anywhere in the left half, or with probability `rare` in the right one, and which."""
    right = torch.rand(count, generator=draw) < rare
    x, y = 2 + 11 * (torch.rand(2, count, 1, 1, generator=draw) / torch.tensor([2, 1])[:, None, None, None])
    pixel = torch.arange(16.0)
    distance = torch.hypot(pixel - x - 5.5 * right[:, None, None], pixel[:, None] - y)
    return (255 * (3 - distance).clamp(0, 1)).to(torch.uint8)[:, None], right


@pytest.mark.slow
@pytest.mark.parametrize(("skew", "low", "high"), [(-1e-6, 0.0, 0.1), (-0.1, 0.12, 0.9)])
def test_rare_pictures_are_imagined_more_often_than_they_were_seen(skew, low, high):
    torch.manual_seed(0)
    draw = generator(5)
    layers = [nn.Conv2d(1, 16, 4, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 4, stride=2, padding=1), nn.ReLU()]
    encoder = Encoder(nn.Sequential(*layers), nn.Linear(256, 32), (1, 16, 16))
    task = make_task("rig", encoder, make_setting(encoder), latent_dim=2, beta=1e-3, channels=8, skew=skew)
    train_on(task, encoder, lambda _: batch_of(mostly_left(64, 0.05, draw)[0]), steps=500, lr=3e-3)
    obs, right = mostly_left(2000, 0.5, draw)
    with torch.no_grad():
        nearest = torch.cdist(task.imagine(torch.zeros(4000, 2)), task.embed(obs, encoder)).argmin(1)
    assert low <= float(right[nearest].float().mean()) <= high  # of 5 % that were seen
