"""One copy behind Gymnasium's own interface, for tools that expect it."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box
from numpy.typing import NDArray

from envs.base import Actions, Padding, VectorEnv
from envs.rollout import Rollout


class SingleEnv(gymnasium.Env[NDArray[np.uint8], Any]):
    """A one-copy `VectorEnv` as a `gymnasium.Env`, its observations stacked.

    Observations are (frame_stack * C, H, W) uint8, oldest frame first. Rewards are raw. A lost life does not end an
    episode.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - the type gymnasium declares

    def __init__(self, vector: VectorEnv, frame_stack: int = 4, padding: Padding = "zeros") -> None:
        """Raises ValueError if `vector` has more than one copy."""
        if vector.num_envs != 1:
            raise ValueError(f"SingleEnv takes one copy, got {vector.num_envs}: build it with num_envs=1")
        channels, height, width = vector.frame_shape
        self.observation_space = Box(0, 255, (frame_stack * channels, height, width), np.uint8)
        self.action_space = vector.action_space
        self._idle = np.zeros_like(vector.action_space.sample())[None]
        self._vector = vector
        self._rollout = Rollout(vector, frame_stack, padding)
        self._over: bool | None = None  # None until the first reset

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Start an episode. With a seed, this and all later episodes are reproducible."""
        super().reset(seed=seed, options=options)
        if self._over and seed is None:  # the copy starts its next episode by itself: cheaper than a seeded reset
            self._rollout.step(lambda _: self._idle)
        else:
            self._rollout.reset(int(self.np_random.integers(2**31)))
        self._over = False
        return self._rollout.observation.pixels[0].copy(), {}

    def step(self, action: Actions) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Play one step. Raises ResetNeeded after the end of an episode, ValueError on a bad action."""
        if self._over is not False:
            raise ResetNeeded("no episode is running: call reset() before step()")
        step = self._rollout.step(lambda _: np.asarray(action)[None])
        self._over, truncated = bool(self._rollout.episodes), bool(step.truncated[0])
        obs = self._rollout.observation.pixels[0].copy()
        return obs, float(step.reward[0]), self._over and not truncated, truncated, {}

    def close(self) -> None:
        """Free the copy."""
        self._vector.close()
