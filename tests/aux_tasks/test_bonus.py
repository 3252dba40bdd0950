"""Exploration bonuses: of contrastive features against an explicit inverse, and what the suite makes of them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from contract_help import agent_of, batch_for_all, small_encoder, suite_of
from control_help import action_array, array, made, slow_mlp, transitions

from aux_tasks import TaskConfig
from configs.schema import PretrainConfig
from configs.sources import FramesConfig
from encoders import EncoderConfig
from envs import ToyConfig

D = 4
both = pytest.mark.parametrize("continuous", [False, True])


def ucb(continuous: bool = False):
    return made("contrastive_ucb", continuous=continuous, hidden=6, latent_dim=D, ridge=0.5)


def slow_phi(task, latent, action) -> np.ndarray:
    phi = slow_mlp(task.phi, np.concatenate([latent, action]))
    return phi / np.linalg.norm(phi)


@both
def test_contrastive_ucb_against_a_loop(continuous):
    (encoder, task), batch = ucb(continuous), transitions(continuous=continuous)
    output = task.loss(batch, encoder(batch.obs), encoder)
    z, then, action = array(encoder(batch.obs)), array(encoder(batch.next_obs)), action_array(batch)
    f = np.exp([[slow_phi(task, z[i], action[i]) @ slow_mlp(task.psi, then[j]) for j in range(7)] for i in range(7)])
    for i in range(7):
        noise = [np.log(1 + f[i, j]) for j in range(7) if j != i]
        expected = (np.log(1 + 1 / f[i, i]) + np.mean(noise)) / 2
        assert float(output.loss[i].detach()) == pytest.approx(expected, rel=1e-4)
    others = f[~np.eye(7, dtype=bool)]
    told = (np.mean(np.diag(f) > 1) + np.mean(others < 1)) / 2
    assert float(output.metrics["accuracy"]) == pytest.approx(told)


@both
def test_the_bonus_is_that_of_all_features_seen(continuous):
    encoder, task = ucb(continuous)
    batch, seen = transitions(continuous=continuous), []
    for k in range(3):
        drawn = replace(batch, obs=batch.obs.roll(k, 0), action=batch.action.flip(0))
        task.count(drawn, encoder)
        seen += [slow_phi(task, z, a) for z, a in zip(array(encoder(drawn.obs)), action_array(drawn), strict=True)]
        with torch.no_grad():
            task.phi[0].weight.add_(0.1)  # what was seen keeps its features
    inverse = np.linalg.inv(0.5 * np.eye(D) + sum(np.outer(phi, phi) for phi in seen))
    found = task.bonus(batch, encoder(batch.obs), encoder).tolist()
    for i, action in enumerate(action_array(batch)):
        phi = slow_phi(task, array(encoder(batch.obs[i : i + 1]))[0], action)
        assert found[i] == pytest.approx(np.sqrt(phi @ inverse @ phi), rel=1e-4)


@torch.no_grad()
def test_the_bonus_falls_most_where_the_agent_was():
    (encoder, task), batch = ucb(), transitions()
    before = task.bonus(batch, encoder(batch.obs), encoder)
    torch.testing.assert_close(before, torch.full_like(before, 2**0.5))  # 1 / sqrt(lambda)
    once = replace(batch, obs=batch.obs[:1], action=batch.action[:1])
    for n in range(1, 4):
        task.count(once, encoder)
        after = task.bonus(batch, encoder(batch.obs), encoder)
        assert float(after[0]) == pytest.approx((0.5 + n) ** -0.5)
    assert (after[1:] > after[0]).all()
    assert (after < before).all()


def test_the_bonus_of_a_forward_model_is_its_loss():
    (encoder, task), batch = made("self_prediction", hidden=6), transitions()
    features = encoder(batch.obs)
    assert torch.equal(task.bonus(batch, features, encoder), task.loss(batch, features, encoder).loss)


# --- of a suite ---


def test_each_bonus_is_divided_by_its_largest_mean_so_far():
    encoder, batch, each = small_encoder(), batch_for_all(), torch.tensor([0.5, 1.0, 1.0, 1.5])
    suite = suite_of("contrastive_ucb/bonus", encoder, weight=0.25)
    ((_, task),) = suite
    for mean, largest in ((2.0, 2.0), (8.0, 8.0), (4.0, 8.0)):
        task.bonus = lambda *_, mean=mean: mean * each
        found = suite.bonus(batch, encoder(batch.obs), encoder, learning=True)
        torch.testing.assert_close(found, 0.25 * mean * each / largest)
    before = suite.state_dict()["largest_bonus"].clone()
    task.bonus = lambda *_: 100 * each
    suite.bonus(batch, encoder(batch.obs), encoder, learning=False)  # a look at it moves nothing
    assert torch.equal(suite.state_dict()["largest_bonus"], before)
    assert suite_of("", encoder).bonus(batch, encoder(batch.obs), encoder, learning=True) is None


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        *((task, {}, "only dbc, self_prediction, contrastive_ucb offer a bonus") for task in ("rotation", "curl")),
        ("dbc", {"form": "mico"}, "no bonus with these options"),
    ],
)
def test_a_task_without_a_bonus_is_refused(task, options, message):
    with pytest.raises(ValueError, match=f"^aux.{task}.bonus_weight=0.5: {message}$"):
        suite_of(f"{task}/bonus", small_encoder(), weight=0.5, options=options)


@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_an_agent_learns_from_returns_with_the_bonus(kind):
    batch = batch_for_all(continuous=kind == "sac")
    exploring, plain = agent_of(kind, "contrastive_ucb/bonus"), agent_of(kind, "contrastive_ucb")
    with_bonus, without = exploring.update(batch), plain.update(batch)
    first = with_bonus.metrics["train/bonus"]
    assert float(first) == pytest.approx(1)  # nothing was seen
    assert not torch.equal(with_bonus.td_error, without.td_error)
    again = agent_of(kind, "contrastive_ucb")
    same = again.update(replace(batch, nstep_reward=batch.nstep_reward + 1))
    torch.testing.assert_close(same.td_error, with_bonus.td_error)
    assert "train/bonus" not in without.metrics


@pytest.mark.parametrize("name", ["contrastive_ucb", "self_prediction", "dbc"])
def test_what_the_bonus_alone_reads_is_counted_only_where_there_is_a_bonus(name):
    encoder, batch, encoded = small_encoder(), batch_for_all(), []
    encoder.register_forward_hook(lambda *_: encoded.append(1))
    for case, passes in ((name, 0), (f"{name}/bonus", int(name == "contrastive_ucb"))):
        suite = suite_of(case, encoder)
        before = {key: value.clone() for key, value in suite.named_buffers()}
        encoded.clear()
        suite.after_step(batch, encoder)
        assert len(encoded) == passes
        moved = [key for key, value in suite.named_buffers() if not torch.equal(value, before[key])]
        assert moved == ["tasks.contrastive_ucb.covariance"] * passes


def test_a_pretraining_has_no_agent_to_explore():
    tasks = {"self_prediction": TaskConfig(bonus_weight=0.5)}
    with pytest.raises(ValueError, match=r"^aux\.self_prediction\.bonus_weight=0\.5 is for train\.py"):
        PretrainConfig(FramesConfig(), ToyConfig(), EncoderConfig(), tasks)
