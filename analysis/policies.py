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


def epsilon_greedy(policy: Policy, space: Discrete | Box, epsilon: float, rng: np.random.Generator) -> Policy:
    """`policy` with uniformly random actions at probability `epsilon`. Continuous actions are not changed."""
    if not isinstance(space, Discrete):
        return policy
    choices = int(space.n)

    def act(obs: Observation) -> Actions:
        chosen = policy(obs)
        random = rng.random(len(chosen)) < epsilon
        return np.where(random, rng.integers(choices, size=len(chosen)), chosen)

    return act


def mix_random(policy: Policy, space: Discrete | Box, share: float, rng: np.random.Generator) -> Policy:
    """`policy` with uniformly random actions at probability `share`, drawn for each copy, of any kind of actions."""
    playing = random_policy(space, rng)

    def act(obs: Observation) -> Actions:
        random = playing(obs)
        kept = [mine if rng.random() < share else its for mine, its in zip(random, policy(obs), strict=True)]
        return np.array(kept, random.dtype)

    return act
