"""Encoders of this suite in the agents of Stable-Baselines3."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from stable_baselines3 import DQN, PPO, SAC

from envs import PointMassConfig, SingleEnv, ToyConfig
from experiment.command_line.overrides import compose_words
from experiment.folders.run_folder import with_run_dir
from experiment.sb3 import SidequestExtractor
from train import Config, train

AGENTS = {
    "dqn": (DQN, ToyConfig, {"learning_starts": 20, "buffer_size": 100}),
    "ppo": (PPO, ToyConfig, {"n_steps": 32, "batch_size": 16, "n_epochs": 1}),
    "sac": (SAC, PointMassConfig, {"learning_starts": 20, "buffer_size": 100, "batch_size": 8}),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each of our agents, on the world of the same name."""
    found = {}
    for agent, env in {"dqn": "toy", "sac": "pointmass"}.items():
        folder = tmp_path_factory.mktemp(agent)
        words = f"env={env} agent={agent} encoder=small steps=40 learning_starts=30 batch_size=4 replay.capacity=100 "
        words += f"threads=1 eval_episodes=0 diagnose_every=0 run_dir={folder}/run"
        assert train(with_run_dir(compose_words("config", *words.split()), Config)) == 0
        found[agent] = folder / "run"
    return found


def model(agent, run, **options):
    kind, env, settings = AGENTS[agent]
    extractor = {"checkpoint": str(run), **options}
    policy = {"features_extractor_class": SidequestExtractor, "features_extractor_kwargs": extractor}
    return kind("CnnPolicy", SingleEnv(env(num_envs=1).build()), policy_kwargs=policy, device="cpu", **settings)


def encoder_of(learner):
    return next(part.encoder for part in learner.policy.modules() if isinstance(part, SidequestExtractor))


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("agent", AGENTS)
def test_agent_learns_on_the_features(agent, frozen, runs):
    run = runs["sac" if agent == "sac" else "dqn"]
    learner = model(agent, run, frozen=frozen)
    before = [p.clone() for p in encoder_of(learner).parameters()]
    trained = load_file(run / "encoder.safetensors")
    assert all(torch.equal(p, trained[name]) for name, p in encoder_of(learner).named_parameters())
    head = [p.clone() for p in learner.policy.parameters()]
    learner.learn(64)
    moved = any(not torch.equal(a, b) for a, b in zip(before, encoder_of(learner).parameters(), strict=True))
    assert moved != frozen
    assert any(not torch.equal(a, b) for a, b in zip(head, learner.policy.parameters(), strict=True))


def test_features_are_those_of_the_encoder(runs):
    learner = model("dqn", runs["dqn"])
    obs = np.random.default_rng(0).integers(256, size=(3, *learner.observation_space.shape), dtype=np.uint8)
    tensor, _ = learner.policy.obs_to_tensor(obs)
    features = learner.policy.extract_features(tensor, learner.policy.q_net.features_extractor)
    torch.testing.assert_close(features, encoder_of(learner)(torch.from_numpy(obs)))


def test_wrong_observations_are_named(runs):
    _, _, settings = AGENTS["dqn"]
    env = SingleEnv(ToyConfig(num_envs=1, size=48).build())
    policy = {"features_extractor_class": SidequestExtractor, "features_extractor_kwargs": {"checkpoint": "nowhere"}}
    with pytest.raises(ValueError, match="nowhere"):
        DQN("CnnPolicy", env, policy_kwargs=policy, **settings)
    policy["features_extractor_kwargs"] = {"checkpoint": str(runs["dqn"])}
    with pytest.raises(ValueError, match=r"48, 48"):
        DQN("CnnPolicy", env, policy_kwargs=policy, **settings)
