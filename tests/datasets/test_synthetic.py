"""Bouncing balls: physics, labels and pictures agree."""

import numpy as np
import pytest

from datasets import Episodes
from datasets.synthetic import BOUNCE, GRAVITY, RADIUS, bouncing_balls

SIZE, LENGTH = 40, 90


def made(balls: int = 1, seed: int = 0, size: int = SIZE) -> Episodes:
    return bouncing_balls(6, LENGTH, size, balls, np.random.default_rng(seed))


def label(episodes: Episodes, name: str) -> np.ndarray:
    return episodes.labels[name].reshape(6, LENGTH).astype(np.float64) / SIZE


def test_energy_is_kept_in_flight_and_lost_at_bounces() -> None:
    episodes = made(balls=3)
    for i in range(3):
        x, y, vx, vy = (label(episodes, f"{name}_{i}") for name in ("x", "y", "vx", "vy"))
        energy = (vx**2 + vy**2) / 2 - GRAVITY * y
        loss = -np.diff(energy, axis=1)
        bounced = ((vx[:, 1:] != vx[:, :-1]) | ((vy[:, 1:] < vy[:, :-1]) & (vy[:, :-1] > 0))).astype(bool)
        free = ~bounced & (y[:, 1:] > RADIUS + 1e-6)
        np.testing.assert_allclose(loss[free], 0, atol=1e-7)
        assert (loss > -1e-7).all()
        assert bounced.any(1).all()
        walls = (np.diff(np.sign(vx)) != 0).sum(1)
        np.testing.assert_allclose(abs(vx[:, -1] / vx[:, 0]), BOUNCE**walls, rtol=1e-5)
        assert RADIUS - 1e-6 < min(x.min(), y.min()) < max(x.max(), y.max()) < 1 - RADIUS + 1e-6
        falling = np.isclose(np.diff(vy), GRAVITY, rtol=1e-3)  # a parabola
        assert falling.mean() > 0.8
        np.testing.assert_allclose((np.diff(y) - vy[:, :-1])[falling], GRAVITY / 2, atol=1e-6)


def test_labels_are_the_centre_of_what_is_drawn() -> None:
    episodes = made()
    frames = episodes.frames.reshape(6, LENGTH, 3, SIZE, SIZE).astype(np.float64)
    background = frames.min(1, keepdims=True)  # darker than the ball, which does not stay
    cover = ((frames - background) / (255 - background))[:, :, 0]  # the first ball is red
    middle = np.arange(SIZE) + 0.5
    area = cover.sum((2, 3))
    np.testing.assert_allclose(area, np.pi * (RADIUS * SIZE) ** 2, rtol=0.05)
    np.testing.assert_allclose(cover.sum(2) @ middle / area / SIZE, label(episodes, "x_0"), atol=0.1 / SIZE)
    np.testing.assert_allclose(cover.sum(3) @ middle / area / SIZE, label(episodes, "y_0"), atol=0.1 / SIZE)


def test_episodes_differ_in_background_and_a_seed_gives_the_same() -> None:
    first, again, other = made(2, seed=3), made(2, seed=3), made(2, seed=4)
    assert first.frames.shape == (6 * LENGTH, 3, SIZE, SIZE)
    assert (first.end - first.begin == LENGTH).all()
    assert set(first.labels) == {f"{name}_{i}" for name in ("x", "y", "vx", "vy") for i in range(2)}
    np.testing.assert_array_equal(first.frames, again.frames)
    for name, values in first.labels.items():
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, again.labels[name])
    assert (first.frames != other.frames).any()
    grounds = first.frames.reshape(6, LENGTH, -1).min(1)
    assert len(np.unique(grounds, axis=0)) == 6


def test_more_than_fits_is_refused() -> None:
    with pytest.raises(MemoryError, match=r"lower source.episodes"):
        bouncing_balls(10**9, 100, 64, 1, np.random.default_rng(0))
