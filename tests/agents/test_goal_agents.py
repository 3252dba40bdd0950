"""Agents that pursue goals: what they read, and that nothing else changes."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from agent_help import learn, make_encoder, make_suite
from test_dqn import CONFIG as DQN_CONFIG
from test_dqn import A as NUM_ACTIONS
from test_dqn import make_batch as dqn_batch
from test_sac import CONFIG as SAC_CONFIG
from test_sac import A as ACTION_DIM
from test_sac import make_batch as sac_batch

from agents import DQN, SAC, Streams
from agents.config import Head
from agents.heads import SpatialHead
from aux_tasks import TaskConfig

G = 3
KINDS = {
    "dqn": (DQN, DQN_CONFIG, NUM_ACTIONS, dqn_batch),
    "dqn averaged": (DQN, replace(DQN_CONFIG, average_tau=0.1), NUM_ACTIONS, dqn_batch),
    "quantile": (DQN, replace(DQN_CONFIG, head=Head.quantile, quantiles=4), NUM_ACTIONS, dqn_batch),
    "implicit": (DQN, replace(DQN_CONFIG, head=Head.implicit, quantiles=4), NUM_ACTIONS, dqn_batch),
    "spatial": (DQN, replace(DQN_CONFIG, head=Head.spatial), 36, dqn_batch),  # on maps of 3 x 3
    "sac": (SAC, SAC_CONFIG, ACTION_DIM, sac_batch),
    "sac shifted": (SAC, replace(SAC_CONFIG, random_shift=1, num_shifts=2), ACTION_DIM, sac_batch),
}


@pytest.fixture(params=KINDS)
def made(request):
    """An agent with goals and an auxiliary task, and a batch."""
    kind, config, actions, batch = KINDS[request.param]
    encoder = make_encoder(0)
    suite = make_suite({"rotation": TaskConfig()}, encoder, None if kind is SAC else actions, actions)
    streams = Streams(np.random.default_rng(2), torch.Generator().manual_seed(3), torch.Generator().manual_seed(4))
    torch.manual_seed(5)
    agent = kind(config, encoder, actions, suite, streams, G)
    data = batch()
    goal = torch.randn(len(data.obs), G, generator=torch.Generator().manual_seed(6)) * torch.tensor([1.0, 10.0, 0.1])
    return agent, replace(data, goal=goal + 5)


def test_goals_are_standardised_on_the_first_batch(made):
    agent, batch = made
    agent.fit_moments(batch)
    features = torch.zeros(2 * len(batch.obs), 4)
    seen = agent.beside_goal(features, batch.goal)[:, 4:]
    assert torch.equal(*seen.chunk(2))  # the same goal for each shifted copy
    torch.testing.assert_close(seen.mean(0), torch.zeros(G), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen.chunk(2)[0].std(0, correction=0), torch.ones(G), atol=1e-3, rtol=0)


def test_goals_far_from_the_first_batch_are_clipped(made):
    agent, batch = made
    agent.fit_moments(batch)
    mean, std = agent.goal_moments
    seen = agent.beside_goal(torch.zeros(2, 4), torch.stack([mean + 100 * std, mean - 3 * std]))[:, 4:]
    torch.testing.assert_close(seen, torch.tensor([[10.0], [-3.0]]).expand(2, G))


def test_the_moments_of_goals_follow_what_is_learned_from(made):
    agent, batch = made
    agent.fit_moments(replace(batch, goal=batch.goal * 1e-3))
    for _ in range(12_000):
        agent.track(batch)
    seen = agent.beside_goal(torch.zeros(len(batch.goal), 4), batch.goal)[:, 4:]
    torch.testing.assert_close(seen.mean(0), torch.zeros(G), atol=0.1, rtol=0)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(G), atol=0.2, rtol=0)


def test_the_goal_reaches_values_losses_and_policy(made):
    agent, batch = made
    agent.fit_moments(batch)
    other = replace(batch, goal=batch.goal.roll(1, 0))

    def answers(batch):
        with agent.preserved_streams(), torch.no_grad():
            obs, next_obs = agent.augment(batch.obs), agent.augment(batch.nstep_obs)
            loss, td_error, _ = agent.td_loss(agent.encoder(obs), batch, next_obs)
            act = agent.act(SimpleNamespace(pixels=batch.obs.numpy(), goal=batch.goal.numpy()), explore=False)
            return loss, td_error, agent.q_values(batch.obs, batch.goal), torch.from_numpy(act).float()

    for k, (one, two) in enumerate(zip(answers(batch), answers(other), strict=True)):
        assert not torch.equal(one, two) or (k == 3 and isinstance(agent, DQN))
    for network in [agent.actor.layers, *agent.critic.twins] if isinstance(agent, SAC) else [agent.head]:
        width = 0 if isinstance(network, SpatialHead) else agent.encoder.feature_dim
        first = next(p for p in network.parameters() if p.ndim == 2 and p.shape[1] >= width + G)
        before = first[:, width : width + G].clone()
        for _ in range(2):
            learn(agent, batch)
        assert not torch.equal(first[:, width : width + G], before)


def test_without_goals_there_are_no_such_inputs():
    for name, (kind, config, actions, batch) in KINDS.items():
        if name == "spatial":
            continue
        encoder = make_encoder(0)
        streams = Streams(np.random.default_rng(2), torch.Generator().manual_seed(3), torch.Generator().manual_seed(4))
        agent = kind(config, encoder, actions, make_suite({}, encoder, None, actions), streams)
        assert agent.input_dim == encoder.feature_dim
        assert "goal_moments" not in agent.acting_weights()
        learn(agent, batch())
