"""Goals of a batch, against the episodes themselves and against the buffer of Stable-Baselines3."""

import itertools
from collections import Counter

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete
from replay_help import CPU, GAMMA, World, assert_equal_batches
from stable_baselines3.common.vec_env import DummyVecEnv
from stable_baselines3.her import HerReplayBuffer

from replay import ReplayConfig, build_replay
from replay.config import RelabelConfig
from replay.relabel import GoalFunctions

KINDS = ("rollout", "future", "final", "episode", "random", "outcome", "imagined")
IMAGINED, PURSUED = 10_000, 20_000


def reward(achieved, desired):
    return (np.abs(achieved - desired).sum(1) % 11 - 5).astype(np.float32)


def terminated(achieved, desired):
    return (achieved + desired).sum(1) % 7 == 0


def imagine(achieved, rng):
    return (achieved + IMAGINED + rng.integers(2, size=achieved.shape)).astype(np.float32)


class GoalWorld(World):
    """A world where row r of copy c achieves (r, c), and pursues the goal (PURSUED + its episode's number, c)."""

    def row(self):
        row = super().row()
        copies = np.arange(self.num_envs)
        achieved = np.stack([np.full(self.num_envs, self.rows - 1), copies], axis=1)
        pursued = np.stack([[PURSUED + len(episodes) for episodes in self.episodes], copies], axis=1)
        return *row, achieved.astype(np.float32), pursued.astype(np.float32)

    def at(self, row, copy):
        """The episode of a row, and its number."""
        found = [(n, e) for n, e in enumerate(self.episodes[copy]) if e.begin <= row < e.begin + len(e.frames)]
        return found[0]


def goal_replay(world, capacity=60, n_step=1, seed=0, discount=1.0, keys=None, **shares):
    relabel = RelabelConfig(**{"rollout": 0.0} | shares, discount=discount)
    return build_replay(
        ReplayConfig(capacity=capacity, n_step=n_step, relabel=relabel, **(keys or {})),
        num_envs=world.num_envs,
        frame_shape=world.frame_shape,
        action_space=world.action_space,
        frame_stack=1,
        gamma=GAMMA,
        clip_reward=False,
        rng=np.random.default_rng(seed),
        device=CPU,
        goal_dim=2,
        goal_functions=GoalFunctions(reward, terminated, imagine),
    )


def filled(rows, **options):
    world = GoalWorld(3, (1, 2, 2), seed=1, mean_length=8)
    replay = goal_replay(world, **options)
    world.fill(rows, replay)
    return world, replay


def cells(world, replay, batch, capacity=60):
    """(row, copy) of each sample."""
    rows = capacity // world.num_envs
    slot, copy = np.divmod(batch.index.numpy(), world.num_envs)
    oldest = max(0, world.rows - rows)
    return zip(oldest + (slot - oldest) % rows, copy, strict=True)


@pytest.mark.parametrize("rows", [17, 90])  # before the ring is full, and long after
@pytest.mark.parametrize("kind", KINDS)
def test_goals_are_of_the_kind_that_was_asked_for(kind, rows):
    world, replay = filled(rows, **{kind: 1.0})
    batch = replay.sample(600, frozenset())
    oldest = max(0, rows - 20)
    seen = set()
    for (row, copy), goal in zip(cells(world, replay, batch), batch.goal.numpy().astype(int), strict=True):
        number, episode = world.at(row, copy)
        last = episode.begin + len(episode.frames) - 1
        if kind == "rollout":
            assert tuple(goal) == (PURSUED + number + 1, copy)
        elif kind == "imagined":
            assert set(goal - (IMAGINED + row, IMAGINED + copy)) <= {0, 1}
        elif kind == "random":
            assert oldest < goal[0] < rows
        elif kind == "outcome":
            other = world.at(goal[0], goal[1])[1]
            assert goal[0] == other.begin + len(other.frames) - 1
        else:
            assert goal[1] == copy
            if kind == "final":
                assert goal[0] == last
            else:
                begin = row if kind == "future" else max(episode.begin, oldest)
                assert begin < goal[0] <= last
                seen.add((row, copy, goal[0] - begin, last - begin))
    if seen:  # the first and the last one that may be chosen are
        assert any(ahead == 1 for _, _, ahead, most in seen if most > 3)
        assert any(ahead == most for _, _, ahead, most in seen if most > 3)


@pytest.mark.parametrize("kind", ["future", "final", "outcome"])
def test_what_follows_the_end_of_an_episode_is_no_goal_of_it(kind):
    """Between two episodes, a cut writes the first frame of the next one, which then starts anew."""
    world = GoalWorld(1, (1, 2, 2), seed=1, mean_length=4)
    replay = goal_replay(world, **{kind: 1.0})
    world.fill(2, replay)
    while not world.over[0]:  # the newest row is the last one of an episode
        world.fill(1, replay)
    replay.cut(np.zeros((1, 1, 2, 2), np.uint8), np.array([[999, 0]], np.float32), np.zeros((1, 2), np.float32))
    world.fill(5, replay)
    copy = goal_replay(world, **{kind: 1.0})
    copy.load_state_dict(replay.state_dict())
    for there in (replay, copy):
        assert (there.sample(200, frozenset()).goal[:, 0] != 999).all()


ANNEALED = {"prioritized": True, "lap": True, "final_n_step": 1, "n_step_steps": 100}


@pytest.mark.parametrize(("n_step", "keys"), [(1, {}), (3, {}), (3, ANNEALED)])
def test_rewards_and_returns_are_those_of_the_new_goal(n_step, keys):
    world, replay = filled(90, n_step=n_step, rollout=0.2, future=0.5, random=0.3, keys=keys)
    replay.advance(40)
    batch = replay.sample(600, frozenset())
    n_step = 2 if keys else n_step  # 3 ** 0.6 is 1.93
    for i, (row, copy) in enumerate(cells(world, replay, batch)):
        goal, (number, episode) = batch.goal[i].numpy(), world.at(row, copy)
        pursued = np.array([[PURSUED + number + 1, copy]], np.float32)
        total, discount = 0.0, 1.0
        for k in range(n_step):
            reached = np.array([[row + k + 1, copy]], np.float32)
            value, over = reward(reached, goal[None])[0], terminated(reached, goal[None])[0]
            if k == 0:
                assert float(batch.reward[i]) == value
            total += discount * value
            discount *= GAMMA
            step = row + k - episode.begin
            over |= episode.terminated[step] and not terminated(reached, pursued)[0]  # for another reason
            if over or episode.terminated[step] or episode.truncated[step]:
                break
        assert float(batch.nstep_reward[i]) == pytest.approx(total, abs=1e-4)
        assert float(batch.discount[i]) == pytest.approx(0 if over else discount)


def test_shares_are_those_of_the_config():
    _, replay = filled(90, rollout=0.2, future=0.3, imagined=0.5)
    goals = replay.sample(10_000, frozenset()).goal[:, 0]
    counts = {"rollout": goals >= PURSUED, "imagined": (goals >= IMAGINED) & (goals < PURSUED), "future": goals < 100}
    assert {kind: round(float(mask.float().mean()), 2) for kind, mask in counts.items()} == pytest.approx(
        {"rollout": 0.2, "imagined": 0.5, "future": 0.3}, abs=0.02
    )


def test_a_discount_prefers_goals_that_are_near():
    world = GoalWorld(1, (1, 2, 2), seed=1, mean_length=10**9)
    replay = goal_replay(world, capacity=12, discount=0.7, future=1.0)
    world.fill(12, replay)
    ahead = Counter()
    for _ in range(40):
        batch = replay.sample(500, frozenset())
        for (row, _), goal in zip(cells(world, replay, batch, 12), batch.goal.numpy(), strict=True):
            if row == 2:  # nine rows follow it
                ahead[int(goal[0]) - row] += 1
    expected = 0.7 ** np.arange(9) / (0.7 ** np.arange(9)).sum()
    found = np.array([ahead[k] for k in range(1, 10)])
    assert ((found - found.sum() * expected) ** 2 / (found.sum() * expected)).sum() < 27  # chi-square, 0.1 %


def test_a_restored_replay_chooses_the_same_goals():
    world, replay = filled(50, n_step=3, future=0.5, episode=0.5)
    other = goal_replay(world, n_step=3, future=0.5, episode=0.5)
    other.load_state_dict(replay.state_dict())
    for _ in range(3):
        assert_equal_batches(replay.sample(64, frozenset()), other.sample(64, frozenset()))
        row = world.row()
        replay.add(*row)
        other.add(*row)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"future": 0.8}, "rollout=1, future=0.8 sum to 1.8"),
        ({"rollout": -0.5, "future": 1.5}, "sum to 1"),
        ({"rollout": 0.5}, "sum to 0.5"),
        ({"discount": 0.0}, "discount"),
    ],
)
def test_shares_that_cannot_be(shares, message):
    with pytest.raises(ValueError, match=message):
        RelabelConfig(**shares)


@pytest.mark.parametrize("rows", [17, 90])
def test_the_first_and_a_later_observation_are_of_the_same_episode(rows):
    world, replay = filled(rows, rollout=1.0)
    batch = replay.sample(400, frozenset({"context", "future"}))
    oldest = max(0, rows - 20)
    for k, (row, copy) in enumerate(cells(world, replay, batch)):
        episode = world.at(row, copy)[1]
        frames = [frame.tobytes() for frame in episode.frames]
        assert batch.context[k].numpy().tobytes() == frames[max(0, oldest - episode.begin)]
        assert batch.future[k].numpy().tobytes() in frames[row - episode.begin + 1 :]


# --- Stable-Baselines3 ---


class Walk(gymnasium.Env):
    """What HerReplayBuffer asks an environment for."""

    def __init__(self):
        goal = Box(-np.inf, np.inf, (2,), np.float32)
        self.observation_space = Dict(dict.fromkeys(("observation", "achieved_goal", "desired_goal"), goal))
        self.action_space = Discrete(18)

    def compute_reward(self, achieved, desired, _):
        return reward(achieved, desired)


def test_future_goals_are_those_of_stable_baselines():
    """The same episodes in both: each transition gets the same goals, as often, with the same rewards."""
    env = DummyVecEnv([Walk])
    theirs = HerReplayBuffer(
        30, env.observation_space, env.action_space, env, device="cpu", n_sampled_goal=4, copy_info_dict=False
    )
    world = GoalWorld(1, (1, 2, 2), seed=3, mean_length=6)
    ours = goal_replay(world, capacity=30, rollout=0.2, future=0.8)
    rows = [world.row() for _ in range(30)]
    for row, after in itertools.pairwise(rows):
        _, _, action, _, terminal, truncated, valid, achieved, desired = row
        if valid[0]:
            seen = {"observation": achieved, "achieved_goal": achieved, "desired_goal": desired}
            then = {"observation": after[7], "achieved_goal": after[7], "desired_goal": desired}
            done = (terminal | truncated) if not after[6][0] else np.zeros(1, bool)  # a lost life goes on
            theirs.add(seen, then, action[None], reward(after[7], desired), done, [{}])
    for row in rows:
        ours.add(*row)

    def frequencies(pairs):
        count = Counter(pairs)
        total = Counter()
        for (row, *_), number in count.items():
            total[row] += number
        return {key: number / total[key[0]] for key, number in count.items()}

    found, expected = [], []
    for _ in range(60):
        batch = ours.sample(2_000, frozenset())
        places = [row for row, _ in cells(world, ours, batch, 30)]
        found += zip(places, batch.goal[:, 0].tolist(), batch.reward.tolist(), strict=True)
        sample = theirs.sample(2_000)
        places = sample.observations["observation"][:, 0].int().tolist()
        goals = sample.observations["desired_goal"][:, 0].tolist()
        expected += zip(places, goals, sample.rewards[:, 0].tolist(), strict=True)
    ended = {row for row, _, _ in expected}  # theirs leaves out the running episode
    ours_by, theirs_by = frequencies(pair for pair in found if pair[0] in ended), frequencies(expected)
    assert ours_by.keys() == theirs_by.keys()
    assert max(abs(ours_by[key] - theirs_by[key]) for key in ours_by) < 0.05
