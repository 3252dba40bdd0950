from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from env_help import play

from envs import PointMassConfig

COPIES = 3


def place(frame: np.ndarray) -> np.ndarray:
    """Position of the mass (N, 2) in [-1, 1], read from (N, 1, H, W) pixels brighter than the goal."""
    size = frame.shape[-1]
    weight = np.clip(frame[:, 0].astype(float) - 128, 0, None)
    rows, cols = weight.sum(2), weight.sum(1)
    pixel = np.arange(size)
    center = np.stack([(cols * pixel).sum(1) / cols.sum(1), (rows * pixel).sum(1) / rows.sum(1)], 1)
    return (center - size / 12) / (size - 1 - size / 6) * 2 - 1


def steer(config: PointMassConfig, steps: int, gain: float = -5) -> list[Any]:
    """Steer by the pixels: towards the middle for a negative gain."""
    return play(config.build(), 0, steps, lambda _, now: np.clip(gain * place(now), -1, 1).astype(np.float32))


def test_who_reads_the_position_gets_nearly_all_of_the_reward_and_others_little() -> None:
    runs = [steer(PointMassConfig(num_envs=8), 50, gain)[1:] for gain in (5, 0, -5)]
    fled, drifting, steered = (np.mean([step.reward for step in run]) for run in runs)
    assert fled < drifting < 0.4 < 0.85 < steered < 1


def test_reward_is_that_of_the_distance_in_the_picture() -> None:
    for step in steer(PointMassConfig(num_envs=COPIES, size=84), 40, gain=0.3)[1:]:
        distance = np.linalg.norm(place(step.frame), axis=1)
        np.testing.assert_allclose(step.reward, np.exp(-2 * distance), atol=0.01)


def test_a_velocity_moves_a_fifth_per_step_to_the_right_and_down() -> None:
    env = PointMassConfig(num_envs=8, size=84).build()
    before = place(env.reset(0))
    after = place(env.step(np.tile(np.float32([0.5, -0.25]), (8, 1))).frame)
    inside = (np.abs(before) < 0.85).all(1)
    assert inside.sum() >= 3
    np.testing.assert_allclose((after - before)[inside], np.tile([0.1, -0.05], (inside.sum(), 1)), atol=0.01)
    np.testing.assert_allclose(place(env.step(np.zeros((8, 2), np.float32)).frame), after, atol=1e-9)


def test_a_force_gathers_speed_until_the_wall_takes_it() -> None:
    env = PointMassConfig(num_envs=1, size=84, control="force").build()
    seen = [place(row.frame)[0, 0] for row in play(env, 1, 49, lambda *_: np.array([[1, 0]], np.float32))]
    expected, speed = [seen[0]], 0.0
    for _ in range(49):
        speed = 0.8 * speed + 0.05
        expected.append(min(expected[-1] + speed, 1.0))
    np.testing.assert_allclose(seen, expected, atol=0.01)
    assert seen[-1] == pytest.approx(1, abs=0.01)


def test_noise_hides_nothing_and_color_tells_the_discs_apart() -> None:
    clear, hazy = (PointMassConfig(num_envs=COPIES, noise=noise).build().reset(0) for noise in (False, True))
    np.testing.assert_array_equal(clear == 255, hazy == 255)
    assert (hazy[clear == 0] < 128).all()
    assert hazy[clear == 0].std() > 30
    color = PointMassConfig(num_envs=COPIES, grayscale=False).build().reset(0)
    assert color.shape == (COPIES, 3, 36, 36)
    np.testing.assert_array_equal(color[:, :1], clear)
    assert {tuple(pixel) for pixel in color.transpose(0, 2, 3, 1).reshape(-1, 3)} >= {(255, 64, 64), (128, 255, 64)}


def test_the_state_is_where_the_picture_shows_the_mass_and_how_it_moves() -> None:
    seen, told = (PointMassConfig(num_envs=COPIES, size=84, control="force", observe=o) for o in ("pixels", "state"))
    assert told.display(99).observe == "pixels"
    push = np.tile(np.float32([0.4, -0.8]), (COPIES, 1))
    pictures, states = (play(config.build(), 3, 20, lambda *_: push) for config in (seen, told))
    for picture, state in zip(pictures, states, strict=True):
        assert (state.frame.shape, state.frame.dtype) == ((COPIES, 4, 1, 1), np.float32)
        np.testing.assert_allclose(state.frame[:, :2, 0, 0], place(picture.frame), atol=0.01)
    for before, after in pairwise(states):
        inside = np.abs(after.frame[:, :2]) < 1
        np.testing.assert_allclose(
            (before.frame[:, :2] + after.frame[:, 2:] - after.frame[:, :2])[inside], 0, atol=1e-6
        )
