"""Policies that measurements use: an agent without exploration, and random actions."""

from functools import partial

import numpy as np
from gymnasium.spaces import Box, Discrete

from agents import Agent
from envs import Actions, Observation, Policy


def greedy(agent: Agent) -> Policy:
    """The policy of an agent without exploration."""
    return partial(agent.act, explore=False)


def random_policy(space: Discrete | Box, rng: np.random.Generator) -> Policy:
    """A policy of uniformly random actions."""

    def act(obs: Observation) -> Actions:
        copies = len(obs.pixels)
        if isinstance(space, Discrete):
            return rng.integers(space.n, size=copies)
        return rng.uniform(-1, 1, (copies, *space.shape)).astype(np.float32)

    return act


def zero_policy(space: Box) -> Policy:
    """A policy of zero actions."""

    def act(obs: Observation) -> Actions:
        return np.zeros((len(obs.pixels), *space.shape), np.float32)

    return act


def mix_random(policy: Policy, space: Discrete | Box, share: float, rng: np.random.Generator) -> Policy:
    """`policy` with uniformly random actions at probability `share`, drawn for each copy, of any kind of actions."""
    playing = random_policy(space, rng)

    def act(obs: Observation) -> Actions:
        chosen = policy(obs)
        random = rng.random(len(chosen)) < share  # (N,), before the actions (N, ...): evaluations depend on the order
        return np.where(random.reshape(-1, *[1] * (chosen.ndim - 1)), playing(obs), chosen)

    return act
