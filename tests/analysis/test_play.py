import itertools

import numpy as np
import pytest
from gymnasium.spaces import Discrete

from analysis.play import env_seed, play_games, rollout, spread, watch
from envs import AtariConfig, DmcConfig, PointMassConfig, ToyConfig, VectorEnv, VectorStep, build_env


class FixedLengths(VectorEnv):
    """Copy i plays games of lengths[i] steps; each step is worth the copy's length."""

    action_space, frame_shape = Discrete(3), (1, 4, 5)

    def __init__(self, lengths):
        self.lengths, self.num_envs = np.array(lengths), len(lengths)
        self.actions = []

    def reset(self, seed):
        self.age, self.over = np.zeros(self.num_envs, int), np.zeros(self.num_envs, bool)
        return self.frame()

    def step(self, action):
        self.actions.append(action)
        first = self.over
        self.age = np.where(first, 0, self.age + 1)
        self.over = self.age == self.lengths
        reward = np.where(first, 0, self.lengths).astype(np.float32)
        no = np.zeros_like(first)
        return VectorStep(self.frame(), reward, self.over, no, self.over, first)

    def frame(self):
        return np.broadcast_to(self.age[:, None, None, None], (self.num_envs, 1, 4, 5)).astype(np.uint8)


def stay(obs):
    return np.ones(len(obs), dtype=np.int64)


def noise(obs):
    """A policy that depends on every pixel."""
    return obs.reshape(len(obs), -1).astype(np.int64) @ np.arange(obs[0].size) % 3


def test_each_copy_plays_its_share_so_that_short_games_do_not_crowd_out_long_ones():
    games = play_games(stay, FixedLengths([1, 100]), 2, epsilon=0.0, episodes=5, seed=0)
    assert games == [(1.0, 1)] * 3 + [(10_000.0, 100)] * 2


def test_more_copies_than_games():
    assert play_games(stay, FixedLengths([3, 2, 4]), 2, epsilon=0.0, episodes=2, seed=0) == [(9.0, 3), (4.0, 2)]


def test_scores_are_the_sums_of_raw_rewards():
    config = ToyConfig(num_envs=3, balls=2)
    games = play_games(noise, build_env(config), 4, epsilon=0.3, episodes=7, seed=9)
    expected = [[], [], []]
    totals, steps = [0.0] * 3, [0] * 3
    for _, _, step in itertools.islice(rollout(noise, build_env(config), 4, 0.3, 9), 200):
        for i in range(3):
            if not step.first[i]:
                totals[i], steps[i] = totals[i] + step.reward[i], steps[i] + 1
            if step.game_over[i]:
                expected[i].append((totals[i], steps[i]))
                totals[i], steps[i] = 0.0, 0
    assert games == expected[0][:3] + expected[1][:2] + expected[2][:2]
    assert len(set(games)) > 1


def test_the_seed_determines_the_games():
    def play(seed):
        return play_games(noise, build_env(ToyConfig(num_envs=3, balls=3)), 4, 0.1, 20, seed)

    assert play(1) == play(1)
    assert play(1) != play(2)
    assert env_seed(1) != env_seed(2)


@pytest.mark.parametrize(("epsilon", "share"), [(0.0, 0.0), (0.3, 0.2), (1.0, 2 / 3)])
def test_epsilon_is_the_share_of_random_actions(epsilon, share):
    env = FixedLengths([50] * 7)
    play_games(stay, env, 2, epsilon, episodes=7 * 20, seed=0)
    other = np.mean(np.array(env.actions) != 1)  # a random action is another one with probability 2/3
    assert other == pytest.approx(share, abs=0.03)


def test_a_new_game_starts_with_an_empty_stack():
    seen = [obs[0, :, 0, 0].tolist() for obs, _, _ in itertools.islice(rollout(stay, FixedLengths([2]), 2, 0, 0), 5)]
    assert seen == [[0, 0], [0, 1], [1, 2], [0, 0], [0, 1]]


@pytest.mark.parametrize(
    "config", [ToyConfig(num_envs=5, balls=2), AtariConfig(game="pong", sticky=0.25, max_frames=800)]
)
def test_watching_shows_the_one_game_that_is_played(config):
    moments = list(watch(noise, config, 4, epsilon=0.1, seed=3, size=100))
    alone = type(config)(**{**vars(config), "num_envs": 1})
    [(score, length)] = play_games(noise, build_env(alone), 4, 0.1, 1, seed=3)
    assert (moments[0].score, moments[-1].score, len(moments)) == (0.0, score, length + 1)
    if isinstance(config, AtariConfig):
        assert moments[0].frame.shape == (3, 100, 100)
    for moment in moments:
        grey = np.array([0.299, 0.587, 0.114]) if len(moment.frame) == 3 else [1]
        brightness = np.tensordot(grey, moment.frame, 1).mean()
        assert moment.obs[-1].mean() == pytest.approx(brightness, abs=2)


def test_continuous_actions_are_those_of_the_policy():
    config, actions = PointMassConfig(num_envs=3, time_limit=7), np.random.default_rng(0).uniform(-1, 1, (8, 3, 2))
    policy = iter(actions.astype(np.float32))
    env = build_env(config)
    games = play_games(lambda obs: next(policy), env, 2, 0.0, 3, seed=1)
    alone, totals = build_env(config), np.zeros(3)
    alone.reset(env_seed(1))
    for action in actions[:7].astype(np.float32):
        totals += alone.step(action).reward
    assert games == [(total, 7) for total in totals]


def test_dm_control_is_shown_larger_than_it_is_seen():
    def policy(obs):
        return np.full((1, 1), obs.mean() / 255, np.float32)

    config = DmcConfig(num_envs=4, background="noise")
    moments = list(itertools.islice(watch(policy, config, 3, 0.0, seed=3, size=100), 4))
    assert [moment.frame.shape for moment in moments] == [(3, 100, 100)] * 4
    assert [moment.obs.shape for moment in moments] == [(9, 84, 84)] * 4


@pytest.mark.parametrize("length", [1, 3, 8, 9, 15, 16, 17, 100, 1000])
def test_spread(length):
    kept = spread(range(length), 8)
    strides = set(np.diff(kept).tolist())
    assert kept[0] == 0
    assert min(length, 4) <= len(kept) <= 8
    assert len(strides) <= 1
    assert length - kept[-1] <= length / 4 + 1
