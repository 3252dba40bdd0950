"""Catch: a pixel game that an agent learns in a minute of CPU (tests/test_learning.py), for first steps."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from envs.base import Actions, EnvConfig, VectorEnv, VectorStep, copy_rngs
from harness.checks import check_least

GRID = 12  # cells a side
PADDLE = 3  # cells wide
PADDLE_GRAY, BALL_GRAY = 128, 255
PADDLE_COLOUR, BALL_COLOUR = (40, 160, 230), (255, 200, 40)


@dataclass(frozen=True)
class ToyConfig(EnvConfig):
    """A game of `balls` balls that fall one row a step while drifting sideways and bouncing off the walls."""

    name: str = "toy"
    num_envs: int = 4
    size: int = 36  # pixels, height and width; the Nature CNN needs 36
    balls: int = 1  # balls that fall in an episode
    grayscale: bool = True  # gray frames instead of colour
    time_limit: int | None = None  # steps until truncation; a ball takes 11, each further one 12; null: none

    def __post_init__(self) -> None:
        check_least(1, "env", num_envs=self.num_envs, balls=self.balls, time_limit=self.time_limit)
        if self.size < GRID or self.size % GRID:
            raise ValueError(f"env.size={self.size}: must be a multiple of {GRID}, such as 36")

    def build(self, labels: bool = False) -> "ToyVector":  # noqa: ARG002
        """See `EnvConfig.build`. Labels are always there."""
        return ToyVector(self)

    def display(self, size: int) -> "ToyConfig":
        """See `EnvConfig.display`."""
        return replace(self, grayscale=False, size=max(size // GRID, 1) * GRID)


class ToyVector(VectorEnv):
    """N copies of Catch. Actions: 0 left, 1 stay, 2 right. Reward: +1 a ball caught, -1 a ball missed.

    The paddle moves a cell a step, a ball drifts up to two: a player has to read the drift from two frames and go
    where the ball will land. Every ball can be caught.
    """

    def __init__(self, config: ToyConfig) -> None:
        self._config = config
        self.action_space = Discrete(3)
        self.num_envs = config.num_envs
        self.frame_shape = (1 if config.grayscale else 3, config.size, config.size)
        self._row, self._col, self._drift, self._paddle, self._landings, self._age = np.zeros(
            (6, config.num_envs), dtype=np.int64
        )

    def reset(self, seed: int) -> NDArray[np.uint8]:
        """See `VectorEnv.reset`. `seed` is any non-negative integer."""
        self._rngs = copy_rngs(seed, self.num_envs)
        self._over = np.zeros(self.num_envs, dtype=np.bool_)
        self._start(~self._over)
        return self._render()

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`."""
        self._check_action(action)
        first, drop = self._over, self._row == GRID - 1
        self._paddle = np.clip(self._paddle + action - 1, 0, GRID - PADDLE)
        ahead = self._col + self._drift
        self._drift[(ahead < 0) | (ahead >= GRID)] *= -1
        self._col += self._drift
        self._row += 1
        self._age += 1
        self._drop(drop & ~first)
        self._start(first)

        landed = self._row == GRID - 1
        caught = (self._paddle <= self._col) & (self._col < self._paddle + PADDLE)
        self._landings += landed
        terminated = self._landings == self._config.balls
        limit = self._config.time_limit
        truncated = np.zeros_like(terminated) if limit is None else (self._age >= limit) & ~terminated
        self._over = terminated | truncated
        return VectorStep(
            frame=self._render(),
            reward=np.where(landed, np.where(caught, 1, -1), 0).astype(np.float32),
            terminated=terminated,
            truncated=truncated,
            game_over=self._over,
            first=first,
        )

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`: cells; the drift is hidden from a single frame."""
        return {
            "paddle": self._paddle.copy(),
            "ball_x": self._col.copy(),
            "ball_y": self._row.copy(),
            "drift": self._drift.astype(np.float32),
        }

    def _start(self, copies: NDArray[np.bool_]) -> None:
        self._age[copies] = self._landings[copies] = 0
        for i in np.flatnonzero(copies):
            self._paddle[i] = self._rngs[i].integers(GRID - PADDLE + 1)
        self._drop(copies)

    def _drop(self, copies: NDArray[np.bool_]) -> None:
        self._row[copies] = 0
        for i in np.flatnonzero(copies):  # one generator a copy: its games do not depend on the others
            self._col[i] = self._rngs[i].integers(GRID)
            self._drift[i] = self._rngs[i].integers(-2, 3)

    def _render(self) -> NDArray[np.uint8]:
        gray = self._config.grayscale
        cells = np.zeros((self.num_envs, self.frame_shape[0], GRID, GRID), dtype=np.uint8)
        copy = np.arange(self.num_envs)
        for i in range(PADDLE):
            cells[copy, :, -1, self._paddle + i] = PADDLE_GRAY if gray else PADDLE_COLOUR
        cells[copy, :, self._row, self._col] = BALL_GRAY if gray else BALL_COLOUR
        pixels = self._config.size // GRID
        return cells.repeat(pixels, axis=2).repeat(pixels, axis=3)
