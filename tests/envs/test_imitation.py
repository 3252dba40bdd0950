"""The reward of an imitation against a loop, at the ages of episodes that begin at different times."""

from types import SimpleNamespace

import numpy as np
import pytest

from envs import ImitationVector, PointMassConfig, Rollout, ToyConfig
from envs.goals import GoalSpace

SIZE, LIMIT = 12, 5


class MeanSpace:
    """The mean of each half of a picture."""

    goal_dim = 2

    def embed(self, frames, context):
        assert len(frames) == len(context)
        return np.stack([half.mean((1, 2, 3)) for half in np.split(frames / 255, 2, axis=2)], axis=1, dtype=np.float32)

    def reward(self, achieved, desired):
        return -np.abs(achieved - desired).sum(1).astype(np.float32)

    def imagine(self, achieved, rng):
        raise ValueError


def demonstration(length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(length, 1, SIZE, SIZE), dtype=np.uint8)


@pytest.mark.parametrize("length", [2, 4, 9])
def test_each_step_is_compared_with_its_moment_of_the_demonstration(length):
    config, space, shown = PointMassConfig(num_envs=3, size=SIZE, time_limit=LIMIT), MeanSpace(), demonstration(length)
    wanted = space.embed(shown, shown)
    typed: GoalSpace = space
    env, plain = ImitationVector(config.build(), typed, shown), config.build()
    rollout, beside = Rollout(env, 1, "zeros"), Rollout(plain, 1, "zeros")
    rollout.reset(3)
    beside.reset(3)
    rng, age = np.random.default_rng(1), 0
    assert (env.frame_shape, env.frame_dtype, env.goal_dim) == ((4, 1, 1), np.float32, 0)
    for _ in range(3 * LIMIT):
        now = space.embed(beside.frame, beside.frame)
        ahead = np.tile(wanted[min(age + 1, length - 1)], (3, 1))
        np.testing.assert_array_equal(rollout.frame[:, :, 0, 0], np.concatenate([now, ahead], axis=1))
        action = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        row, there = (each.step(lambda _, a=action: a) for each in (rollout, beside))
        assert row.valid.tolist() == there.valid.tolist()
        age = age + 1 if row.valid[0] else 0
        reached = space.embed(beside.frame, beside.frame)
        for i in range(3):
            expected = -np.abs(reached[i] - wanted[min(age, length - 1)]).sum() if row.valid[i] else 0
            assert row.reward[i] == pytest.approx(expected, rel=1e-5)
        np.testing.assert_array_equal(env.labels()["x"], plain.labels()["x"])
    assert {episode.length for episode in rollout.episodes} <= {LIMIT}
    env.close()


def test_what_cannot_be_imitated_is_refused():
    with pytest.raises(ValueError, match="has two pictures or more, this one 1"):
        ImitationVector(ToyConfig().build(), MeanSpace(), demonstration(1))
    with pytest.raises(ValueError, match=r"gives states: env.observe=pixels"):
        ImitationVector(SimpleNamespace(frame_dtype=np.float32), MeanSpace(), demonstration(3))


def test_the_cameras_of_the_point_mass_show_the_same_moment():
    env = PointMassConfig(num_envs=2, size=SIZE, grayscale=False, views=["turned", "mirrored"]).build()
    env.reset(0)
    frame = env.step(np.ones((2, 2), np.float32)).frame
    assert env.views().shape == (2, 2, 3, SIZE, SIZE)
    for y, x in np.ndindex(SIZE, SIZE):
        np.testing.assert_array_equal(env.views()[:, 0, :, SIZE - 1 - x, y], 255 - frame[:, :, y, x])
        np.testing.assert_array_equal(env.views()[:, 1, :, y, SIZE - 1 - x], frame[:, [2, 0, 1], y, x])
    with pytest.raises(ValueError, match=r"env.views"):
        PointMassConfig(views=["side"])
