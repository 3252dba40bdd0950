import itertools
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Discrete
from replay_help import build

from analysis.episode import evenly_spaced, play_moments
from analysis.evaluation import (
    env_seed,
    evaluate,
    evaluate_columns,
    format_interval,
    play_episodes,
    start_rollout,
)
from analysis.statistics import summary
from envs import (
    AtariConfig,
    DmcConfig,
    EnvConfig,
    Observation,
    Padding,
    PointMassConfig,
    Policy,
    Protocol,
    Rollout,
    ToyConfig,
    VectorEnv,
    VectorStep,
)
from experiment.training.monitoring import eval_scores


@dataclass(frozen=True)
class Lengths(EnvConfig):
    """A user's own family: copy i plays episodes of lengths[i] steps; each step is worth the copy's length."""

    name: str = "lengths"
    num_envs: int = 2
    lengths: tuple[int, ...] = (1, 100)

    def build(self, labels: bool = False) -> "LengthsVector":
        return LengthsVector(self.lengths[: self.num_envs])


class LengthsVector(VectorEnv):
    action_space, frame_shape = Discrete(3), (1, 4, 5)

    def __init__(self, lengths: tuple[int, ...]) -> None:
        self.lengths, self.num_envs = np.array(lengths), len(lengths)
        self.actions: list[np.ndarray] = []

    def reset(self, seed: int) -> np.ndarray:
        self.age, self.over = np.zeros(self.num_envs, int), np.zeros(self.num_envs, bool)
        return self.frame()

    def step(self, action: np.ndarray) -> VectorStep:
        self.actions.append(action)
        first = self.over
        self.age = np.where(first, 0, self.age + 1)
        self.over = self.age == self.lengths
        reward = np.where(first, 0, self.lengths).astype(np.float32)
        return VectorStep(self.frame(), reward, self.over, np.zeros_like(first), self.over, first)

    def frame(self) -> np.ndarray:
        return np.broadcast_to(self.age[:, None, None, None] + 1, (self.num_envs, 1, 4, 5)).astype(np.uint8)


def stay(obs: Observation) -> np.ndarray:
    return np.ones(len(obs.pixels), dtype=np.int64)


def noise(obs: Observation) -> np.ndarray:
    """A policy that depends on every pixel."""
    return obs.pixels.reshape(len(obs.pixels), -1).astype(np.int64) @ np.arange(obs.pixels[0].size) % 3


def steer(obs: Observation, dimensions: int = 2) -> np.ndarray:
    return np.full((1, dimensions), obs.pixels.mean() / 255, np.float32)


def played(config: EnvConfig, policy: Policy, episodes: int, epsilon: float = 0.0, seed: int = 0) -> list[Any]:
    report = evaluate(policy, Protocol("env", epsilon, config), 4, episodes, seed, config.num_envs)
    return list(zip(report.returns, report.lengths, strict=True))


def test_each_copy_plays_its_share_so_that_short_episodes_do_not_crowd_out_long_ones() -> None:
    assert played(Lengths(), stay, 5) == [(1.0, 1)] * 3 + [(10_000.0, 100)] * 2
    assert played(Lengths(num_envs=3, lengths=(3, 2, 4)), stay, 2) == [(9.0, 3), (4.0, 2)]


def test_an_evaluation_that_is_stopped_reports_what_was_played_and_says_so() -> None:
    config, steps = Lengths(), 0

    def stop() -> bool:
        nonlocal steps
        steps += 1
        return steps > 9

    report = evaluate(stay, Protocol("env", 0.0, config), 4, 5, 0, config.num_envs, stop)
    assert (report.returns, report.partial) == ([1.0] * 3, True)  # the others have 100 steps
    assert not evaluate(stay, Protocol("env", 0.0, config), 4, 5, 0, config.num_envs).partial
    with pytest.raises(KeyboardInterrupt):
        evaluate(stay, Protocol("env", 0.0, config), 4, 5, 0, config.num_envs, lambda: True)


def test_one_episode_is_logged_and_shown_without_a_spread() -> None:
    alone = summary([1.0])
    assert format_interval(alone) == ""
    assert eval_scores(alone, {}) == {"eval/mean_reward": 1.0, "eval/median_reward": 1.0}
    assert "eval/std_reward" in eval_scores(summary([1.0, 2.0]), {})


class Columns(Lengths):
    """With two more columns."""

    columns = ("first", "second")

    def protocol(self, name: str | None = None) -> Protocol:
        return Protocol(name or "env", 0.0, self)


def test_columns_are_complete_or_left_out_and_an_interrupt_that_nobody_asked_for_goes_on() -> None:
    asked: dict[str, Any] = {"frame_stack": 4, "episodes": 4, "seed": 0, "num_envs": 2}
    steps = itertools.count()
    found = evaluate_columns(stay, Columns(lengths=(1, 20)), **asked, stop=lambda: next(steps) > 60)
    assert list(found) == ["first"]  # 40 steps; the second is cut
    assert evaluate_columns(stay, Columns(), **asked, stop=lambda: True) == {}
    assert list(evaluate_columns(stay, Columns(), **asked)) == ["first", "second"]

    def interrupted(obs: Observation) -> np.ndarray:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_columns(interrupted, Columns(), **asked)


def test_returns_are_the_sums_of_raw_rewards_and_follow_from_the_seed() -> None:
    config = ToyConfig(num_envs=3, balls=2)
    rollout, policy = start_rollout(noise, config.build(), Protocol("env", 0.3, config), 4, 9)
    expected: list[list[tuple[float, int]]] = [[], [], []]
    totals, steps = np.zeros(3), np.zeros(3, int)
    for _ in range(200):
        row = rollout.step(policy)
        totals += row.reward
        steps += row.valid
        for episode in rollout.episodes:
            i = episode.copy
            assert not row.first[i]
            expected[i].append((totals[i], steps[i]))
            totals[i], steps[i] = 0.0, 0
    episodes = played(config, noise, 7, 0.3, 9)
    assert episodes == expected[0][:3] + expected[1][:2] + expected[2][:2]
    assert len(set(episodes)) > 1
    assert episodes == played(config, noise, 7, 0.3, 9) != played(config, noise, 7, 0.3, 8)
    assert env_seed(1) != env_seed(2)


@pytest.mark.parametrize(("epsilon", "share"), [(0.0, 0.0), (0.3, 0.2), (1.0, 2 / 3)])
def test_epsilon_is_the_share_of_random_actions(epsilon: float, share: float) -> None:
    config = Lengths(num_envs=7, lengths=(50,) * 7)
    env = config.build()
    play_episodes(*start_rollout(stay, env, Protocol("env", epsilon, config), 2, 0), 7 * 20)
    assert np.mean(np.array(env.actions) != 1) == pytest.approx(share, abs=0.03)  # another one two times in three


def test_continuous_actions_are_those_of_the_policy() -> None:
    config = PointMassConfig(num_envs=3, time_limit=7)
    actions = np.random.default_rng(0).uniform(-1, 1, (8, 3, 2)).astype(np.float32)
    replies = iter(actions)
    episodes = played(config, lambda _: next(replies), 3, epsilon=0.5, seed=1)
    alone = config.build()
    alone.reset(env_seed(1))
    totals = sum(alone.step(action).reward.astype(float) for action in actions[:7])
    assert episodes == [(total, 7) for total in totals]


@pytest.mark.parametrize(("padding", "before"), [("zeros", 0), ("repeat", 1)])
def test_a_familys_own_module_is_all_it_needs(padding: Padding, before: int) -> None:
    config = replace(Lengths(), lengths=(2, 2))
    rollout = Rollout(config.build(), 2, padding)
    rollout.reset(0)
    replay = build(rollout.env, 60, 2, 1, padding=padding)
    seen = []
    for _ in range(12):
        seen.append(rollout.observation.pixels[0, :, 0, 0].tolist())
        replay.add(*rollout.step(stay))
    assert seen[:5] == [[before, 1], [1, 2], [2, 3], [before, 1], [1, 2]]
    sampled = replay.sample(50, frozenset()).obs[:, :, 0, 0].tolist()
    assert sorted(map(tuple, sampled))[0] == (before, 1)
    assert {tuple(stack) for stack in sampled} == {(before, 1), (1, 2)}
    assert config.protocol() == Protocol("env", 0.0, config)


@pytest.mark.parametrize(
    "config",
    [ToyConfig(balls=2), ToyConfig(balls=2, size=12), AtariConfig(sticky=0.25, max_frames=800), PointMassConfig()],
    ids=str,
)
def test_what_is_shown_is_the_episode_that_is_played(config: EnvConfig) -> None:
    discrete = not isinstance(config, PointMassConfig)
    policy = noise if discrete else steer
    protocol = Protocol("env", 0.1, config)
    moments = list(play_moments(policy, protocol, 4, seed=3, size=100))
    alone = replace(config, num_envs=1)
    [(score, length)] = played(alone, policy, 1, 0.1, 3)
    assert (moments[0].score, moments[-1].score, len(moments)) == (0.0, score, length + 1)
    if discrete:
        assert len(moments[0].frame) == 3
        assert 96 <= moments[0].frame.shape[1] <= 100
    for moment in moments if isinstance(config, AtariConfig) else []:
        brightness = np.tensordot([0.299, 0.587, 0.114], moment.frame, 1).mean()
        assert moment.obs[-1].mean() == pytest.approx(brightness, abs=2)


def test_dm_control_is_shown_larger_than_it_is_seen() -> None:
    protocol = DmcConfig(num_envs=4, background="noise").protocol()
    policy = partial(steer, dimensions=1)
    moments = list(itertools.islice(play_moments(policy, protocol, 3, seed=3, size=100), 4))
    assert [moment.frame.shape for moment in moments] == [(3, 100, 100)] * 4
    assert [moment.obs.shape for moment in moments] == [(9, 84, 84)] * 4
    np.testing.assert_array_equal(moments[0].obs[:3], moments[0].obs[6:])  # the first frame, repeated


@pytest.mark.parametrize("length", [1, 3, 8, 9, 15, 16, 17, 100, 1000])
def test_evenly_spaced(length: int) -> None:
    kept = evenly_spaced(range(length), 8)
    strides = set(np.diff(kept).tolist())
    assert kept[0] == 0
    assert min(length, 4) <= len(kept) <= 8
    assert len(strides) <= 1
    assert length - kept[-1] <= length / 4 + 1
