import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from env_help import play
from stable_baselines3.common.env_checker import check_env

from envs import GymGoalConfig, SingleGoalEnv

LINE = GymGoalConfig(num_envs=3, id="Line-v0")


def test_actions_are_scaled_and_rewards_are_functions_of_the_goals() -> None:
    env = LINE.build()
    frame = env.reset(0)
    assert (frame.shape, frame.dtype, env.goal_dim) == ((3, 2, 1, 1), np.float32, 1)
    ended = set()
    for _ in range(30):
        before = env.goals()
        step = env.step(np.float32([[-0.5], [1], [0.25]]))
        achieved, desired = env.goals()
        moved = np.float32([[0], [6], [3]])
        np.testing.assert_allclose(np.where(step.first[:, None], 0, achieved - before.achieved - moved), 0, atol=1e-5)
        np.testing.assert_array_equal(step.frame[:, 0, 0], achieved)
        np.testing.assert_array_equal(env.labels()["state_0"], achieved[:, 0])
        plays = ~step.first
        np.testing.assert_array_equal(step.reward[plays], env.compute_reward(achieved, desired)[plays])
        np.testing.assert_array_equal(step.terminated[plays], env.compute_terminated(achieved, desired)[plays])
        np.testing.assert_array_equal(env.is_success(achieved, desired), np.abs(achieved - desired)[:, 0] <= 1)
        assert not step.reward[step.first].any()
        ended |= {"terminated"} if step.terminated.any() else set()
        ended |= {"truncated"} if step.truncated.any() else set()
    assert ended == {"terminated", "truncated"}
    env.close()


def test_pictures_are_scaled() -> None:
    env = replace(LINE, observe="pixels", size=8).build()
    frame = env.reset(0)
    assert (frame.shape, frame.dtype, env.frame_shape) == ((3, 3, 8, 8), np.uint8, (3, 8, 8))
    np.testing.assert_array_equal(frame[:, 0, 0, 0], (20 * env.goals().achieved[:, 0]).astype(int))
    for row, shown in zip(play(LINE.build(), 4, 20), play(LINE.display(16).build(), 4, 20), strict=True):
        assert shown.frame.shape == (3, 3, 16, 16)
        assert "reward" not in vars(row) or (row.reward == shown.reward).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            {"id": "LineDense-v0"},
            "env.id=LineDense-v0: dense rewards do not say when a goal is reached",
        ),
        ({"id": "CartPole-v1"}, "env.id=CartPole-v1: must have goals, which are observations with"),
        (
            {"id": "antigravity:Line-v1"},
            "env.id=antigravity:Line-v1: give import=antigravity, the module that registers it",
        ),
        ({"id": "line_env:Lin-v0"}, "unknown id 'Lin-v0': did you mean 'Line-v0'?"),
        ({"observe": "pixel"}, "env.observe must be one of state, pixels, got 'pixel': did you mean 'pixels'?"),
        ({"time_limit": -1}, "env.time_limit must be at least 0, got -1"),
    ],
)
def test_what_cannot_be_is_named(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(message)):
        replace(LINE, **wrong).build()


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ogbench", None)
    with pytest.raises(RuntimeError, match=r"env.id=ogbench:cube-single-v0 needs ogbench, .*'sidequest\[ogbench\]'"):
        GymGoalConfig(id="ogbench:cube-single-v0").build()


# --- packages ---


def config_of(name: str, **settings: Any) -> GymGoalConfig:
    pytest.importorskip("ogbench" if name.startswith("ogbench") else "gymnasium_robotics")
    return GymGoalConfig(id=name, num_envs=2, time_limit=7, **settings)


ALL = [
    "FetchReach-v4",
    "FetchPickAndPlace-v4",
    "PointMaze_UMaze-v3",
    "AntMaze_UMaze-v5",
    "ogbench:pointmaze-medium-v0",
    "ogbench:antmaze-medium-v0",
    "ogbench:cube-double-v0",
]


@pytest.mark.parametrize("name", ALL)
def test_one_seed_one_future_and_rewards_of_the_goals(name: str) -> None:
    env = config_of(name).build()
    rows = play(env, 3, 10)
    for row, again in zip(rows, play(env, 3, 10), strict=True):
        for column, values in vars(row).items():
            np.testing.assert_array_equal(getattr(again, column), values, err_msg=column)
    goals = env.goals()
    env.reset(3)
    for _ in range(7):
        step = env.step(env.action_space.sample()[None].repeat(2, 0))
        np.testing.assert_allclose(step.reward, env.compute_reward(*env.goals()), atol=1e-6)
        np.testing.assert_array_equal(step.terminated, env.compute_terminated(*env.goals()))
    assert step.truncated.all()
    assert env.is_success(goals.desired, goals.desired).all()
    assert not env.is_success(goals.desired + 1, goals.desired).any()
    env.close()


@pytest.mark.parametrize("name", ["FetchReach-v4", "PointMaze_UMaze-v3", "ogbench:pointmaze-medium-v0"])
def test_pixels_of_packages(name: str) -> None:
    env = config_of(name, observe="pixels", size=64).build()
    frame = env.reset(0)
    moved = [env.step(np.ones((2, *env.action_space.shape), np.float32)).frame for _ in range(4)][-1]
    assert frame.shape == (2, 3, 64, 64)
    assert frame.std() > 10
    assert 0 < (frame != moved).mean() < 0.7
    env.close()


def test_pictures_are_the_same_beside_others_that_come_and_go() -> None:
    config = config_of("FetchReach-v4", observe="pixels", size=64)
    actions = np.random.default_rng(0).uniform(-1, 1, (4, 2, 4)).astype(np.float32)
    alone = config.build()
    expected = [alone.reset(0), *(alone.step(action).frame for action in actions)]
    alone.close()
    env = config.build()
    for step, frame in enumerate(expected):
        np.testing.assert_array_equal(env.step(actions[step - 1]).frame if step else env.reset(0), frame)
        other = config.build()
        assert other.reset(1).any()
        other.close()
    env.close()


def test_stable_baselines_accepts_fetch() -> None:
    env = SingleGoalEnv(replace(config_of("FetchReach-v4"), num_envs=1).build())
    check_env(env)
    env.close()


def test_of_ogbench_only_places_are_goals() -> None:
    with pytest.raises(ValueError, match=r"env\.id=scene-v0: of OGBench there are cube-"):
        config_of("ogbench:scene-v0").build()
