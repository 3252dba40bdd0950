"""Deep sea: a grid whose one treasure random actions hardly ever find, for exploration."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from envs.base import Actions, EnvConfig, VectorEnv, VectorStep
from harness.checks import check_least

COST = 0.01  # of going right all the way


@dataclass(frozen=True)
class DeepSeaConfig(EnvConfig):
    """A diver who sinks one row a step, towards a treasure in the corner (Osband et al. 2020, bsuite)."""

    name: str = "deep_sea"
    num_envs: int = 1
    size: int = 36  # pixels, height and width; the Nature CNN needs 36
    cells: int = 12  # of a side of the grid; a random diver finds the treasure in one of 2^(cells - 1) episodes

    def __post_init__(self) -> None:
        check_least(1, "env", num_envs=self.num_envs)
        check_least(2, "env", cells=self.cells)
        if self.size < self.cells or self.size % self.cells:
            raise ValueError(f"env.size={self.size}: must be a multiple of env.cells={self.cells}")

    def build(self, labels: bool = False) -> "DeepSeaVector":  # noqa: ARG002
        """See `EnvConfig.build`. Labels are always there."""
        return DeepSeaVector(self)


class DeepSeaVector(VectorEnv):
    """N copies. The action of the 2 that goes right differs between cells and never changes.

    An episode begins in the left corner of the top row and terminates at the bottom, after `cells` - 1 steps. Reward:
    +1 in its right corner, which only steps to the right reach, and -`COST` / (`cells` - 1) for each of them.
    """

    def __init__(self, config: DeepSeaConfig) -> None:
        self.action_space = Discrete(2)
        self.num_envs, self._cells, self._pixels = config.num_envs, config.cells, config.size // config.cells
        self.frame_shape = (1, config.size, config.size)
        self._right = np.random.default_rng(0).integers(2, size=(config.cells, config.cells))
        self._row, self._col = np.zeros((2, config.num_envs), dtype=np.int64)

    def reset(self, seed: int) -> NDArray[np.uint8]:  # noqa: ARG002
        """See `VectorEnv.reset`. Nothing is random, so that `seed` does not matter."""
        self._over = np.zeros(self.num_envs, dtype=np.bool_)
        self._row[:] = self._col[:] = 0
        return self._render()

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`."""
        self._check_action(action)
        first, last = self._over, self._cells - 1
        right = (action == self._right[self._row, self._col]) & ~first
        self._col = np.where(first, 0, np.clip(self._col + np.where(right, 1, -1), 0, last))
        self._row = np.where(first, 0, self._row + 1)
        self._over = self._row == last
        found = self._over & (self._col == last)
        return VectorStep(
            frame=self._render(),
            reward=(found - COST / last * right).astype(np.float32),
            terminated=self._over,
            truncated=np.zeros_like(first),
            game_over=self._over,
            first=first,
        )

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`."""
        return {"row": self._row.copy(), "column": self._col.copy()}

    def _render(self) -> NDArray[np.uint8]:
        cells = np.zeros((self.num_envs, 1, self._cells, self._cells), dtype=np.uint8)
        cells[np.arange(self.num_envs), 0, self._row, self._col] = 255
        return cells.repeat(self._pixels, axis=2).repeat(self._pixels, axis=3)
