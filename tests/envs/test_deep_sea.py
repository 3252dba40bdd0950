"""The deep sea: where the treasure lies, and what the way there costs."""

import numpy as np
import pytest
from env_help import play

from envs import DeepSeaConfig


def right(env) -> np.ndarray:
    """The actions that go right in each cell."""
    return env._right


@pytest.mark.parametrize("cells", [2, 4, 12])
def test_only_steps_to_the_right_find_the_treasure(cells: int) -> None:
    env = DeepSeaConfig(num_envs=3, cells=cells).build()
    env.reset(0)
    for t in range(3 * cells):
        row = col = t % cells
        labels = env.labels()
        assert (labels["row"] == row).all()
        step = env.step(np.full(3, right(env)[row, col]))
        last = t % cells == cells - 2
        assert (step.terminated == last).all()
        assert (step.first == (t % cells == cells - 1)).all()
        cost = 0 if step.first.all() else 0.01 / (cells - 1)
        np.testing.assert_allclose(step.reward, last - cost, rtol=1e-6)


def test_who_goes_left_once_finds_nothing() -> None:
    env = DeepSeaConfig(num_envs=11).build()
    env.reset(0)
    total = np.zeros(11)
    for row in range(11):
        col = env.labels()["column"]
        actions = right(env)[row, col]
        actions[row] = 1 - actions[row]  # copy i goes left in row i
        total += env.step(actions).reward
    np.testing.assert_allclose(total, -0.01 * 10 / 11, rtol=1e-5)


def test_a_frame_shows_the_diver_alone_and_actions_mean_other_things_in_other_cells() -> None:
    env = DeepSeaConfig(num_envs=2).build()
    for row in play(env, 0, 30):
        seen = row.frame[:, 0, 1::3, 1::3]
        np.testing.assert_array_equal(seen.repeat(3, 1).repeat(3, 2), row.frame[:, 0])
        assert (np.sort(seen.reshape(2, -1))[:, -2:] == [0, 255]).all()
        if hasattr(row, "row"):
            assert (seen[np.arange(2), row.row, row.column] == 255).all()
    assert 0.3 < right(env).mean() < 0.7
    np.testing.assert_array_equal(right(env), right(DeepSeaConfig().build()))
