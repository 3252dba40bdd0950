"""The tasks on control against loops over samples, and which way their gradients go."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from aux_help import batch_of, generator, noise
from control_help import (
    SHAPE,
    A,
    B,
    Z,
    action_array,
    array,
    clips,
    cross_entropy,
    made,
    slow_likelihood,
    slow_mlp,
    slow_prediction,
    smooth_l1,
    transitions,
)

from aux_tasks.parts.bisimulation import FORMS
from aux_tasks.parts.dynamics import LatentTransition
from encoders import ENCODERS, EncoderConfig, build_encoder
from encoders.augment import random_shift

both = pytest.mark.parametrize("continuous", [False, True])


def move(encoder) -> None:
    """Change the encoder, so that its momentum copies are others."""
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter += 0.1 * torch.rand_like(parameter)


def assert_same_gradients(loss, expected, parameters, **tolerances) -> None:
    for got, wanted in zip(
        torch.autograd.grad(loss.sum(), parameters), torch.autograd.grad(expected.sum(), parameters), strict=True
    ):
        assert wanted.any()
        torch.testing.assert_close(got, wanted, **tolerances)


# --- CURL ---


def test_curl_and_its_examples_against_a_loop():
    (encoder, task), obs = made("curl", pad=2), noise(11, *SHAPE)
    move(encoder)
    with torch.no_grad():
        task.similarity += torch.rand(Z, Z)
    draw = task.generator.clone_state()
    query, key = random_shift(obs, 2, draw), random_shift(obs, 2, draw)
    output = task.loss(batch_of(obs), torch.empty(0), encoder)
    task.generator.manual_seed(2)  # the same draw again
    shown = task.examples(batch_of(obs), encoder)
    assert torch.equal(shown.pictures["query"], query[:8])
    assert torch.equal(shown.pictures["its key"], key[:8])
    assert torch.equal(shown.pictures["chosen"], key[[int(j) for j in shown.predicted]])
    assert shown.correct == [str(i) for i in range(8)]
    q, k, w = array(encoder(query)), array(task.target_encoder(key)), array(task.similarity)
    closest = []
    for i in range(11):
        logits = [sum(q[i][a] * w[a][b] * k[j][b] for a in range(Z) for b in range(Z)) for j in range(11)]
        assert float(output.loss[i].detach()) == pytest.approx(cross_entropy(logits, i), rel=1e-3, abs=1e-4)
        closest.append(str(np.argmax(logits)))
    assert shown.predicted == closest[:8]
    assert float(output.metrics["accuracy"]) == pytest.approx(np.mean([closest[i] == str(i) for i in range(11)]))


# --- SPR ---


def stretched(maps):
    return (maps - maps.min()) / (maps.max() - maps.min() + 1e-5)


@both
def test_spr_against_a_loop(continuous):
    encoder, task = made("spr", continuous=continuous, projection_dim=5, pad=2, horizon=3)
    batch = clips(continuous=continuous)
    move(encoder)
    seen = random_shift(batch.clip[:, :4].flatten(0, 1), 2, task.generator.clone_state()).view(B, 4, *SHAPE)
    output = task.loss(batch, torch.empty(0), encoder)
    predicted, target = np.empty((3, B, 5)), np.empty((3, B, 5))
    for i in range(B):
        maps = stretched(encoder.maps(seen[i : i + 1, 0]))
        for k in range(3):
            vector = batch.clip_action[i, k] if continuous else torch.eye(A)[batch.clip_action[i, k]]
            planes = vector[None, :, None, None].expand(1, A, *maps.shape[2:])
            maps = stretched(task.transition(torch.cat([maps, planes], 1)))
            future = stretched(task.target_encoder.maps(seen[i : i + 1, k + 1]))
            predicted[k, i] = array(task.predictor(task.projection(maps)))[0]
            target[k, i] = array(task.target_projection(future))[0]
    predicted /= np.linalg.norm(predicted, axis=2, keepdims=True)
    target /= np.linalg.norm(target, axis=2, keepdims=True)
    hits = 0
    for i in range(B):
        terms = [float(batch.clip_mask[i, k]) * ((predicted[k, i] - target[k, i]) ** 2).sum() for k in range(3)]
        assert float(output.loss[i]) == pytest.approx(sum(terms) / 3, rel=1e-3, abs=1e-5)
        hits += sum(bool(batch.clip_mask[i, k]) and (target[k] @ predicted[k, i]).argmax() == i for k in range(3))
    assert float(output.metrics["accuracy"]) == pytest.approx(hits / float(batch.clip_mask[:, :3].sum()))


# --- the predictive task ---


@both
@pytest.mark.parametrize("horizon_gamma", [0.0, 0.7])
def test_the_predictive_task_against_a_loop(horizon_gamma, continuous):
    options = {"hidden": 6, "horizon_gamma": horizon_gamma, "negative_weight": 0.3}
    (encoder, task), batch = made("predictive", continuous=continuous, **options), clips(continuous=continuous)
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


def test_the_predictive_target_is_a_constant_and_both_latents_of_a_pair_learn():
    (encoder, task), batch = made("predictive", hidden=6), clips()
    features, action = encoder(batch.obs).detach().requires_grad_(), torch.eye(A)[batch.clip_action]
    with torch.no_grad():
        after = encoder(batch.clip[:, 1])
        further = task.transition(torch.cat([after, action[:, 1]], 1))
        constant = after + 0.5 * batch.clip_mask[:, 1:2] * (further - after)
    loss = task.loss(batch, features, encoder).loss
    error = task.transition(torch.cat([features, action[:, 0]], 1)) - constant
    apart = features - features[torch.randperm(B, generator=generator(2))]
    expected = error.square().mean(1) + (-apart.norm(dim=1)).exp()
    assert_same_gradients(loss, expected, [features, *task.parameters()])


# --- inverse dynamics ---


@both
def test_inverse_dynamics_against_a_loop_and_its_examples(continuous):
    encoder, task = made("inverse_dynamics", continuous=continuous, hidden=6)
    batch = transitions(continuous=continuous)
    output, shown = task.loss(batch, encoder(batch.obs), encoder), task.examples(batch, encoder)
    before, after = array(encoder(batch.obs)), array(encoder(batch.next_obs))
    guesses = np.array([slow_mlp(task.head, np.concatenate([before[i], after[i]])) for i in range(B)])
    action = batch.action.double().numpy()
    assert torch.equal(shown.pictures["before"], batch.obs)
    assert torch.equal(shown.pictures["after"], batch.next_obs)
    for i in range(B):
        if continuous:
            expected = ((guesses[i] - action[i]) ** 2).mean()
            words = [" ".join(f"{x:+.1f}" for x in vector) for vector in (guesses[i], action[i])]
        else:
            expected = cross_entropy(guesses[i], int(action[i]))
            words = [str(guesses[i].argmax()), str(int(action[i]))]
        assert float(output.loss[i]) == pytest.approx(expected, rel=1e-4)
        assert [shown.predicted[i], shown.correct[i]] == words
    if continuous:
        r2 = 1 - ((guesses - action) ** 2).sum() / ((action - action.mean(0)) ** 2).sum()
        assert float(output.metrics["r2"]) == pytest.approx(r2, rel=1e-4)
        constant = task.loss(replace(batch, action=torch.ones(B, A)), encoder(batch.obs), encoder)
        assert constant.metrics["r2"].isfinite()
    else:
        assert float(output.metrics["accuracy"]) == pytest.approx((guesses.argmax(1) == action).mean())


def test_both_ends_of_the_step_train_the_encoder():
    (encoder, task), batch = made("inverse_dynamics"), transitions()
    loss = task.loss(batch, encoder(batch.obs), encoder).loss
    logits = task.head(torch.cat([encoder(batch.obs), encoder(batch.next_obs)], 1))
    assert_same_gradients(loss, F.cross_entropy(logits, batch.action, reduction="sum"), [*encoder.parameters()])


# --- reconstruction ---


@pytest.mark.parametrize("bits", [1, 3, 5, 8])
def test_reconstruction_against_a_loop(bits):
    (encoder, task), obs = made("reconstruction", bits=bits, channels=2, latent_weight=0.01), noise(B, *SHAPE)
    dither = torch.rand(obs.shape, generator=task.generator.clone_state())
    output = task.loss(batch_of(obs), encoder(obs), encoder)
    latent, decoded = array(encoder(obs)), array(task.decoder(encoder(obs)))
    target = np.empty(obs.shape)
    for index in np.ndindex(*obs.shape):
        target[index] = (int(obs[index]) // 2 ** (8 - bits) + float(dither[index])) / 2**bits - 0.5
    for i in range(B):
        expected = ((decoded[i] - target[i]) ** 2).mean() + 0.01 * 0.5 * (latent[i] ** 2).sum()
        assert float(output.loss[i]) == pytest.approx(expected, rel=1e-4)
    ratio = ((decoded - target) ** 2).mean() / target.var(0).mean()
    assert float(output.metrics["error_ratio"]) == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "size"),
    [(name, (84, 84)) for name in sorted(ENCODERS.keys() - {"state"})]
    + [(name, (36, 48)) for name in sorted(ENCODERS.keys() - {"state", "alexnet"})],
)
def test_the_decoder_fits_every_encoder(name, size):
    encoder = build_encoder(EncoderConfig(name, feature_dim=Z), (6, *size))
    _, task = made("reconstruction", encoder=encoder, channels=2)
    assert task.decoder(torch.zeros(2, Z)).shape == (2, 6, *size)


def test_examples_stand_above_their_reconstructions():
    (encoder, task), obs = made("reconstruction", channels=2), noise(B, *SHAPE)
    with torch.no_grad():
        task.decoder[-1].weight.zero_()
        task.decoder[-1].bias.copy_(torch.tensor([-0.7, -0.25, 0.125, 0.6]))
    shown = task.examples(batch_of(obs), encoder)
    assert torch.equal(shown.pictures["observation"], obs[:4])
    assert shown.pictures["predicted"].dtype == torch.uint8
    assert shown.pictures["predicted"][:, :, 0, 0].tolist() == [[0, 64, 160, 255]] * 4


# --- DeepMDP ---


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


DISTANCES = {
    "wasserstein": lambda mean, _, target: np.sqrt(sum((mean - target) ** 2)),
    "likelihood": lambda mean, std, target: slow_likelihood([(mean, std)], target),
    "mmd": slow_mmd,
}
CHOICES = [(model, distance) for model in ("deterministic", "gaussian", "ensemble") for distance in DISTANCES]
CHOICES = [(model, distance) for model, distance in CHOICES if model == "deterministic" or distance != "wasserstein"]


@both
@pytest.mark.parametrize(("model", "distance"), CHOICES)
def test_deepmdp_against_a_loop(model, distance, continuous):
    options = {"hidden": 6, "members": 2, "reward_weight": 0.5, "model": model, "distance": distance}
    (encoder, task), batch = made("deepmdp", continuous=continuous, **options), transitions(continuous=continuous)
    with torch.no_grad():
        output = task.loss(batch, encoder(batch.obs), encoder)
    latent, target, action = array(encoder(batch.obs)), array(encoder(batch.next_obs)), action_array(batch)
    squared = {"transition": [], "reward": []}
    for i in range(B):
        each = slow_prediction(task.transition.members, latent[i], action[i], model)
        expected = np.mean([DISTANCES[distance](m, s, target[i]) for m, s in each])
        error = slow_mlp(task.reward, np.concatenate([latent[i], action[i]]))[0] - float(batch.reward[i])
        assert float(output.loss[i]) == pytest.approx(expected + 0.5 * smooth_l1(error), rel=1e-4, abs=1e-5)
        squared["transition"].append((np.mean([m for m, _ in each], axis=0) - target[i]) ** 2)
        squared["reward"].append(error**2)
    for name, values in squared.items():
        assert float(output.metrics[f"{name}_error"]) == pytest.approx(np.mean(values), rel=1e-4)
    assert float(output.metrics["reward_baseline"]) == pytest.approx(array(batch.reward).var(), rel=1e-4)
    assert float(output.metrics["transition_baseline"]) == pytest.approx(target.var(0).mean(), rel=1e-4)


def test_members_of_an_ensemble_differ():
    model = LatentTransition(Z, A, kind="ensemble", hidden=6, members=2)
    first, second = model(torch.randn(B, Z), torch.zeros(B, A)).mean
    assert not torch.allclose(first, second)


def test_on_maps_each_action_has_a_convolution_and_the_trunk_learns_from_the_present_alone():
    (encoder, task), batch = made("deepmdp", hidden=6, space="maps", reward_weight=0.5), transitions()
    loss = task.loss(batch, torch.empty(0), encoder).loss
    with torch.no_grad():
        target = encoder.maps(batch.next_obs).flatten(1)
    maps, conv = encoder.maps(batch.obs), task.transition.conv
    blocks = [slice(3 * int(action), 3 * int(action) + 3) for action in batch.action]
    predicted = torch.cat(
        [F.conv2d(m[None], conv.weight[b], conv.bias[b], padding=1) for m, b in zip(maps, blocks, strict=True)]
    )
    error = task.reward(torch.cat([maps.flatten(1), torch.eye(A)[batch.action]], 1)).squeeze(1) - batch.reward
    expected = (predicted.flatten(1) - target).norm(dim=1)
    expected = expected + 0.5 * torch.where(error.abs() < 1, error**2 / 2, error.abs() - 0.5)
    torch.testing.assert_close(loss, expected)
    assert_same_gradients(loss, expected, list(encoder.trunk.parameters()), rtol=1e-4, atol=1e-4)


FUTURE_IS_CONSTANT = [
    ("deepmdp", {}),
    ("predictive", {}),
    ("self_prediction", {}),
    *(("dbc", {"form": form}) for form in FORMS),
]


@pytest.mark.parametrize(("name", "options"), FUTURE_IS_CONSTANT)
def test_the_encoder_learns_from_the_features_of_the_present_alone(name, options):
    (encoder, task), batch = made(name, hidden=6, **options), replace(clips(), next_obs=noise(B, *SHAPE, seed=9))
    features = encoder(batch.obs).detach().requires_grad_()
    task.loss(batch, features, encoder).loss.sum().backward()
    assert features.grad.any(1).all()
    assert all(p.grad is None for p in encoder.parameters())


def test_self_prediction_against_a_loop():
    (encoder, task), batch = made("self_prediction", hidden=6, continuous=True), transitions(continuous=True)
    with torch.no_grad():
        for p in task.target_encoder.parameters():
            p *= 1.3  # somewhere else than the encoder
        output = task.loss(batch, encoder(batch.obs), encoder)
    latent, target = array(encoder(batch.obs)), array(task.target_encoder(batch.next_obs))
    for i, action in enumerate(action_array(batch)):
        ((mean, _),) = slow_prediction(task.transition.members, latent[i], action, "deterministic")
        assert float(output.loss[i]) == pytest.approx(((mean - target[i]) ** 2).mean() / 2, rel=1e-4)
    assert float(output.metrics["error_ratio"]) > 0
