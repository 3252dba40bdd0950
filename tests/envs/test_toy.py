from collections.abc import Callable

import numpy as np

from envs import ToyConfig, VectorStep

Policy = Callable[[np.ndarray, np.ndarray], np.ndarray]


def cells(frame: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row and column of the ball and the paddle's middle, read from (N, 1, 36, 36) pixels of 3 x 3 cells."""
    grid = frame[:, 0, 1::3, 1::3]
    np.testing.assert_array_equal(grid.repeat(3, 1).repeat(3, 2), frame[:, 0])
    _, row, col = np.nonzero(grid == 255)
    paddle = np.array([np.flatnonzero(bottom).mean() for bottom in grid[:, -1]])
    return row, col, paddle


def predict(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    """Go to where the last two frames say that the ball will land."""
    row, col, paddle = cells(now)
    old_row, old_col, _ = cells(before)
    landing = [
        roll_out(r, c, c - old_c if r == old_r + 1 else 0)
        for r, c, old_r, old_c in zip(row, col, old_row, old_col, strict=True)
    ]
    return (np.sign(np.clip(landing, 1, 10) - paddle) + 1).astype(np.int64)


def roll_out(row: int, col: int, drift: int) -> int:
    for _ in range(row, 11):
        if not 0 <= col + drift < 12:
            drift = -drift
        col += drift
    return col


def chase(before: np.ndarray, now: np.ndarray) -> np.ndarray:
    _, col, paddle = cells(now)
    return (np.sign(np.clip(col, 1, 10) - paddle) + 1).astype(np.int64)


def play(config: ToyConfig, policy: Policy, steps: int, seed: int = 0) -> list[VectorStep]:
    env = config.build()
    before = now = env.reset(seed)
    played = []
    for _ in range(steps):
        played.append(env.step(policy(before, now)))
        before, now = now, played[-1].frame
    return played


def mean_reward(steps: list[VectorStep]) -> float:
    rewards = np.concatenate([step.reward for step in steps])
    assert set(rewards) <= {-1.0, 0.0, 1.0}
    return rewards[rewards != 0].mean()


def test_the_ball_is_always_caught_by_who_reads_its_motion_and_not_by_others() -> None:
    rng = np.random.default_rng(0)
    config = ToyConfig(num_envs=5)
    assert mean_reward(play(config, predict, 1200)) == 1
    assert mean_reward(play(config, chase, 1200)) < 0.95
    assert mean_reward(play(config, lambda _, now: rng.integers(3, size=len(now)), 1200)) < 0


def test_further_balls_of_an_episode_can_be_caught_too() -> None:
    steps = play(ToyConfig(num_envs=3, balls=4), predict, 480)
    assert mean_reward(steps) == 1
    assert [t for t, step in enumerate(steps) if step.terminated.all()][:2] == [46, 94]  # 4 * 12 - 1 steps


def test_flags_of_a_whole_episode() -> None:
    steps = play(ToyConfig(num_envs=3), predict, 40)
    assert [t for t, step in enumerate(steps) if step.terminated.all()] == [10, 22, 34]
    assert [t for t, step in enumerate(steps) if step.first.all()] == [11, 23, 35]
    for step in steps:
        np.testing.assert_array_equal(step.game_over, step.terminated)
        np.testing.assert_array_equal(step.reward != 0, step.terminated)
        assert not step.truncated.any()
        assert (cells(step.frame)[0][step.first] == 0).all()


def test_time_limit_truncates_unless_the_ball_landed() -> None:
    steps = play(ToyConfig(num_envs=3, time_limit=4), predict, 15)
    assert [t for t, step in enumerate(steps) if step.truncated.all()] == [3, 8, 13]
    assert [t for t, step in enumerate(steps) if step.first.all()] == [4, 9, 14]
    assert not any(step.terminated.any() or step.reward.any() for step in steps)
    landing = play(ToyConfig(num_envs=3, time_limit=11), predict, 11)[-1]
    assert landing.terminated.all()
    assert not landing.truncated.any()
