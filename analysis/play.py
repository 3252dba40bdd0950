"""Playing with a fixed policy: scored games for a report, one watched game for people."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from envs import Actions, AtariConfig, DmcConfig, EnvConfig, FrameStack, VectorEnv, VectorStep, build_env
from harness.seeding import derive, numpy_stream

log = logging.getLogger(__name__)

Pixels: TypeAlias = NDArray[np.uint8]
Policy: TypeAlias = Callable[[Pixels], Actions]  # observations (N, C, H, W) -> actions


def rollout(
    policy: Policy, env: VectorEnv, frame_stack: int, epsilon: float, seed: int
) -> Iterator[tuple[Pixels, Actions, VectorStep]]:
    """Endless play: observations (N, C, H, W), valid until the next item, actions, their step.

    Discrete actions are random with probability `epsilon`, continuous ones are those of the policy.
    """
    rng = numpy_stream(seed, "evaluate/explore")
    stack = FrameStack(env.num_envs, env.frame_shape, frame_stack)
    obs = stack.reset(env.reset(env_seed(seed)))
    while True:
        action = policy(obs)
        if isinstance(env.action_space, Discrete):
            random = rng.random(env.num_envs) < epsilon
            action = np.where(random, rng.integers(env.action_space.n, size=env.num_envs), action)
        step = env.step(action)
        yield obs, action, step
        obs = stack.push(step)


def env_seed(seed: int) -> int:
    """Seed of the games of an evaluation, apart from those of training."""
    return derive(seed, "evaluate/env")


def play_games(
    policy: Policy, env: VectorEnv, frame_stack: int, epsilon: float, episodes: int, seed: int
) -> list[tuple[float, int]]:
    """Raw score and length in agent steps of `episodes` full games, ordered by copy.

    Each copy plays a share fixed beforehand: the first games to end would be too often the short ones.
    """
    copies = env.num_envs
    quota = [episodes // copies + (i < episodes % copies) for i in range(copies)]
    games: list[list[tuple[float, int]]] = [[] for _ in range(copies)]
    score, length, done = np.zeros(copies), np.zeros(copies, dtype=np.int64), 0
    for _, _, step in rollout(policy, env, frame_stack, epsilon, seed):
        score += step.reward
        length += ~step.first
        for i in np.flatnonzero(step.game_over):
            if len(games[i]) < quota[i]:
                games[i].append((float(score[i]), int(length[i])))
                done += 1
                if done % max(1, episodes // 10) == 0:
                    log.info("%d of %d games played", done, episodes)
            score[i] = length[i] = 0
        if done == episodes:
            break
    return [game for copy in games for game in copy]


@dataclass(frozen=True)
class Moment:
    """What the agent sees, what a person sees, and the score so far."""

    obs: Pixels  # (C, H, W)
    frame: Pixels  # (C', H', W'), in colour and larger where the environment can
    score: float


def watch(
    policy: Policy, config: EnvConfig, frame_stack: int, epsilon: float, seed: int, size: int
) -> Iterator[Moment]:
    """One game from its first moment to its last.

    The pictures of Atari and dm_control come from a twin, in colour and size x size, with the same seed and actions.
    """
    config = replace(config, num_envs=1)
    env = build_env(config)
    shown: EnvConfig = config
    if isinstance(config, AtariConfig):
        shown = replace(config, grayscale=False, size=size)
    elif isinstance(config, DmcConfig):
        shown = replace(config, size=size)
    twin = build_env(shown)
    frame, score, over = twin.reset(env_seed(seed)), 0.0, False
    for obs, action, step in rollout(policy, env, frame_stack, epsilon, seed):
        yield Moment(obs[0].copy(), frame[0], score)
        if over:
            break
        twin_step = twin.step(action)
        assert twin_step.reward == step.reward, "the twin plays another game"
        frame, score, over = twin_step.frame, score + float(step.reward[0]), bool(step.game_over[0])
    env.close()
    twin.close()


def spread(items: Iterable[Moment], count: int) -> list[Moment]:
    """At most `count` items evenly spaced over a stream of unknown length, never holding more than twice as many."""
    kept: list[Moment] = []
    stride = 1
    for i, item in enumerate(items):
        if i % stride == 0:
            kept.append(item)
        if len(kept) == 2 * count:
            kept, stride = kept[::2], 2 * stride
    return kept[:: -(-len(kept) // count)]
