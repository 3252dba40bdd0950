import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import ale_py
import gymnasium
import numpy as np
import pytest
from ale_py import roms
from env_help import play
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from envs import AtariConfig, AtariVector, FrameStack, atari_games

BREAKOUT = AtariConfig(game="breakout", num_envs=2)
PLAIN = AtariConfig(num_envs=2, noop_max=0, fire_reset=False, life_loss=False)


def gymnasium_atari(game: str, *, grayscale: bool = True) -> gymnasium.Env:
    name = f"ALE/{game.capitalize()}-v5"
    env = gymnasium.make(name, frameskip=1, repeat_action_probability=0.0)
    env = AtariPreprocessing(env, noop_max=0, frame_skip=4, screen_size=84, grayscale_obs=grayscale)
    return FrameStackObservation(env, 4, padding_type="zero")


@pytest.mark.parametrize(
    ("game", "grayscale", "copies", "steps"),
    [("pong", True, 1, 220), ("breakout", True, 2, 220), ("breakout", False, 1, 40)],
)
def test_equals_gymnasium_preprocessing_step_for_step(game: str, grayscale: bool, copies: int, steps: int) -> None:
    env = replace(PLAIN, game=game, num_envs=copies, grayscale=grayscale).build()
    stack = FrameStack(copies, env.frame_shape, 4)
    stacks = stack.reset(env.reset(7))
    references = [gymnasium_atari(game, grayscale=grayscale) for _ in range(copies)]
    expected = [reference.reset()[0] for reference in references]
    actions, games = np.random.default_rng(1), 0
    for _ in range(steps + 1):
        for got, wanted in zip(stacks, expected, strict=True):
            planes = wanted if grayscale else wanted.transpose(0, 3, 1, 2).reshape(12, 84, 84)
            np.testing.assert_array_equal(got, planes)
        action = actions.integers(env.action_space.n, size=copies)
        step = env.step(action)
        stacks = stack.push(step)
        for i, reference in enumerate(references):
            reward, ended = 0.0, False
            if step.first[i]:
                games += 1
                expected[i] = reference.reset()[0]
            else:
                expected[i], reward, ended, _, _ = reference.step(action[i])
            assert (step.reward[i], step.terminated[i], step.game_over[i]) == (reward, ended, ended)
    assert bool(games) == (copies == 2)  # the reset after a game was compared too


@pytest.mark.parametrize(("game", "most"), [("breakout", 1), ("space_invaders", 20)])
def test_score_of_a_game_is_the_sum_of_ales_own_points(game: str, most: int) -> None:
    env = AtariVector(replace(PLAIN, game=game, num_envs=1, life_loss=True))
    ale = ale_py.ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(game))
    ale.reset_game()
    env.reset(0)
    actions, rewards, points = np.random.default_rng(5), [], 0
    while not ale.game_over():
        action = actions.integers(env.action_space.n, size=1)
        step = env.step(action)
        rewards.append(step.reward[0])
        for _ in range(4):
            points += ale.act(ale.getMinimalActionSet()[action[0]])
    assert step.game_over[0]
    assert sum(rewards) == points > 0
    assert max(rewards) >= most


def test_a_lost_life_ends_the_return_and_not_the_game_and_changes_only_the_flag() -> None:
    breakout, plain = (play(replace(BREAKOUT, life_loss=flag).build(), 0, 260)[1:] for flag in (True, False))
    for i in range(2):
        over = next(t for t, step in enumerate(breakout) if step.game_over[i])
        assert sum(step.terminated[i] for step in breakout[: over + 1]) == 5  # 4, 3, 2, 1, 0 lives left
        assert not any(step.first[i] or step.truncated[i] for step in breakout[: over + 1])
        assert not breakout[over + 1].terminated[i]
    for before, after in pairwise(breakout):
        np.testing.assert_array_equal(after.first, before.game_over)
        assert not (after.reward * after.first).any()
    for step, flagged in zip(plain, breakout, strict=True):
        for field in ("frame", "reward", "truncated", "game_over", "first"):
            np.testing.assert_array_equal(getattr(step, field), getattr(flagged, field), err_msg=field)
        np.testing.assert_array_equal(step.terminated, step.game_over)


def test_games_action_sets_and_shapes() -> None:
    assert {"pong", "breakout", "ms_pacman"} <= set(atari_games())
    assert atari_games() == sorted(atari_games())
    env = AtariVector(AtariConfig(num_envs=1, full_actions=True, grayscale=False, size=40))
    assert (env.action_space.n, env.frame_shape, env.reset(0).shape) == (18, (3, 40, 40), (1, 3, 40, 40))
    assert AtariVector(AtariConfig(game="breakout", num_envs=1)).action_space.n == 4


def test_close_ends_the_threads_and_may_be_repeated() -> None:
    script = (
        "import os; from envs import *; threads = lambda: len(os.listdir('/proc/self/task')); before = threads();"
        "env = AtariVector(AtariConfig(num_envs=1)); env.reset(0); assert threads() > before;"
        "env.close(); env.close(); assert threads() == before"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("game", atari_games())
def test_every_game_plays(game: str) -> None:
    env = AtariVector(AtariConfig(game=game, num_envs=1))
    assert env.reset(0).shape == (1, *env.frame_shape)
    assert all(np.isfinite(env.step(np.array([k])).reward) for k in range(3))
    env.close()
