"""Worlds made in memory: all that happens in them is known."""

import colorsys

import numpy as np
from numpy.typing import NDArray

from datasets.episodes import Episodes
from datasets.readers import room

RADIUS = 0.1  # of a box of side 1
GRAVITY = 0.004  # a frame squared: from top to floor in 20 frames
BOUNCE = 0.85  # of the speed towards a wall that is left after it
SPEED = 0.04  # at the start, the largest in either direction, a frame
DARK = 70  # backgrounds are darker, and all balls brighter


def bouncing_balls(episodes: int, length: int, size: int, balls: int, rng: np.random.Generator) -> Episodes:
    """Balls that fall in a box and lose speed at every bounce, so that time has a direction; they do not collide.

    Frames (3, size, size) show ball i in its colour in front of balls of lower i, on the background of its episode.
    The labels are floats: `x_i` and `y_i`, the centre in pixels from the left and upper edge of the picture, `vx_i` and
    `vy_i` in pixels a frame, downwards positive.

    Args:
        episodes: how many.
        length: frames of each.
        size: height and width, pixels.
        balls: in the box.
        rng: generator for all random draws.

    Raises:
        MemoryError: the frames do not fit.
    """
    count = episodes * length
    frames = room(count, size, "frames", "lower source.episodes").reshape(episodes, length, 3, size, size)
    motion = np.empty((episodes, length, 4, balls), np.float32)
    for picture, state in zip(frames, motion, strict=True):
        state[:] = _fly(length, balls, rng) * size
        picture[:] = _draw(state, _background(size, rng))
    names = [f"{name}_{i}" for name in ("x", "y", "vx", "vy") for i in range(balls)]
    labels = dict(zip(names, motion.reshape(count, -1).T, strict=True))
    begin = np.arange(0, count, length)
    return Episodes(frames.reshape(count, 3, size, size), begin, begin + length, labels)


def _fly(length: int, balls: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(length, 4, balls): x, y, vx and vy in a box of side 1. Parabolas are exact; a bounce waits for its frame."""
    position = rng.uniform(RADIUS, 1 - RADIUS, (2, balls))
    speed = rng.uniform(-SPEED, SPEED, (2, balls))
    pull = np.array([[0.0], [GRAVITY]])
    states = np.empty((length, 4, balls))
    for state in states:
        state[:] = *position, *speed
        position, speed = position + speed + pull / 2, speed + pull
        inside = position.clip(RADIUS, 1 - RADIUS)
        squared = (speed**2 - 2 * pull * (position - inside)).clip(0)  # at the wall itself, so that no energy is gained
        speed = np.where(position == inside, speed, -np.sign(speed) * BOUNCE * np.sqrt(squared))
        position = inside
    return states


def _background(size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """(3, size, size) waves of random colour, direction and length, in [0, DARK]."""
    row, column = np.mgrid[:size, :size] / size
    fy, fx, phase = rng.uniform(-2, 2, (3, 3, 1, 1))
    waves: NDArray[np.float64] = np.sin(2 * np.pi * (fy * row + fx * column + phase))
    return ((1 + waves) * DARK / 2).astype(np.float32)


def _draw(state: NDArray[np.float32], background: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pictures (T, 3, size, size) of (T, 4, balls) in pixels; the edges of balls cover pixels in part."""
    size, balls = background.shape[-1], state.shape[-1]
    middle = np.arange(size, dtype=np.float32) + 0.5
    pictures = np.repeat(background[None], len(state), axis=0)
    for i in range(balls):
        x, y = state[:, 0, i, None, None], state[:, 1, i, None, None]
        cover = (RADIUS * size + 0.5 - np.hypot(middle - x, middle[:, None] - y)).clip(0, 1)[:, None]
        colour = 255 * np.array(colorsys.hsv_to_rgb(i / balls, 0.6, 1), np.float32)[:, None, None]
        pictures += cover * (colour - pictures)
    return pictures.round()
