"""Checks and features for `replay.synthetic`, whose batches are partly synthetic."""

from functools import partial

import torch

from agents import Agent
from agents.config import SACConfig, Svea
from configs.schema import Config
from encoders import FrozenEncoder
from replay.synthetic import Features


def check_synthetic(config: Config) -> None:
    """Raise ValueError if `replay.synthetic` is on but batches cannot hold features in place of pixels."""
    agent = config.agent
    if not config.replay.synthetic.share:
        return
    if not isinstance(agent, SACConfig):
        raise ValueError(f"replay.synthetic is for continuous actions, not for agent={agent.name}: agent=sac")
    if config.aux:
        raise ValueError(f"aux={'+'.join(config.aux)}: replay.synthetic freezes the encoder, which tasks would train")
    if config.encoder.name != "state" and agent.encoder_scale:
        raise ValueError(
            "replay.synthetic makes features, which must not change: encoder=state, or agent.encoder_scale=0 and "
            "encoder.init=<folder>"
        )
    if agent.random_shift or agent.svea is not Svea.none:
        key = "random_shift" if agent.random_shift else "svea"
        raise ValueError(f"agent.{key} changes pixels, but batches of replay.synthetic hold features: leave it out")


def synthetic_features(config: Config, agent: Agent, stream: torch.Generator) -> Features | None:
    """The features of synthetic transitions: of a frozen encoder, or states; None without `replay.synthetic`.

    Raises:
        ValueError: the agent has goals.
    """
    if not config.replay.synthetic.share:
        return None
    if agent.goal_dim:
        raise ValueError(f"replay.synthetic makes transitions without goals, but env={config.env.name} has goals")
    encoder = agent.encoder
    encode = encoder if isinstance(encoder, FrozenEncoder) else partial(torch.flatten, start_dim=1)
    return Features(encode, encoder.feature_dim, stream)
