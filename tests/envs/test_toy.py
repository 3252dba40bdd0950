import numpy as np
from env_help import Policy, play

from envs import ToyConfig


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


def mean_reward(config: ToyConfig, policy: Policy, steps: int = 1200) -> float:
    played = play(config.build(), 0, steps, policy)[1:]
    assert all((cells(step.frame)[0][step.first] == 0).all() for step in played)
    rewards = np.concatenate([step.reward for step in played])
    assert set(rewards) <= {-1.0, 0.0, 1.0}
    return rewards[rewards != 0].mean()


def test_the_ball_is_always_caught_by_who_reads_its_motion_and_not_by_others() -> None:
    config, rng = ToyConfig(num_envs=5), np.random.default_rng(0)
    assert mean_reward(config, predict) == mean_reward(ToyConfig(num_envs=3, balls=4), predict, 480) == 1
    assert mean_reward(config, chase) < 0.95
    assert mean_reward(config, lambda _, now: rng.integers(3, size=len(now))) < 0
