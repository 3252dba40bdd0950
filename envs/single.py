"""One copy behind Gymnasium's own interface, for tools that expect it."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

from envs.base import Actions, Padding, VectorEnv
from envs.rollout import Rollout


class SingleEnv(gymnasium.Env[Any, Any]):
    """A one-copy `VectorEnv` as a `gymnasium.Env`, its observations stacked.

    Observations are (frame_stack * C, H, W) uint8, oldest frame first, or states as (frame_stack * D,) float32.
    Rewards are raw. A lost life does not end an episode.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 - the type gymnasium declares

    def __init__(self, vector: VectorEnv, frame_stack: int = 4, padding: Padding = "zeros") -> None:
        """Raises ValueError if `vector` has more than one copy."""
        if vector.num_envs != 1:
            raise ValueError(f"SingleEnv takes one copy, got {vector.num_envs}: build it with num_envs=1")
        channels, height, width = vector.frame_shape
        pixels = vector.frame_dtype == np.uint8
        self._stack: Box[Any] = (
            Box(0, 255, (frame_stack * channels, height, width), np.uint8)
            if pixels
            else Box(-np.inf, np.inf, (frame_stack * channels,), np.float32)
        )
        self.observation_space: Space[Any] = self._stack
        self.action_space = vector.action_space
        self._idle = np.zeros_like(vector.action_space.sample())[None]
        self._vector = vector
        self._rollout = Rollout(vector, frame_stack, padding)
        self._over: bool | None = None  # None until the first reset

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. With a seed, this and all later episodes are reproducible."""
        super().reset(seed=seed, options=options)
        if self._over and seed is None:  # the copy starts its next episode by itself: cheaper than a seeded reset
            self._rollout.step(lambda _: self._idle)
        else:
            self._rollout.reset(int(self.np_random.integers(2**31)))
        self._over = False
        return self._observe(), {}

    def step(self, action: Actions) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play one step. Raises ResetNeeded after the end of an episode, ValueError on a bad action."""
        if self._over is not False:
            raise ResetNeeded("no episode is running: call reset() before step()")
        step = self._rollout.step(lambda _: np.asarray(action)[None])
        self._over, truncated = bool(self._rollout.episodes), bool(step.truncated[0])
        return self._observe(), float(step.reward[0]), self._over and not truncated, truncated, self._inform()

    def _observe(self) -> Any:
        return self._rollout.observation.pixels[0].reshape(self._stack.shape).copy()

    def _inform(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """Free the copy."""
        self._vector.close()


class SingleGoalEnv(SingleEnv):
    """One copy of an environment with goals behind Gymnasium's goal interface, as hindsight replay expects it.

    Observations are dictionaries: `observation` as of `SingleEnv`, `achieved_goal` and `desired_goal` (G,) float32.
    `info["is_success"]` says whether the goal is reached.
    """

    def __init__(self, vector: VectorEnv, frame_stack: int = 1, padding: Padding = "zeros") -> None:
        """Raises ValueError if `vector` has more than one copy, or no goals."""
        super().__init__(vector, frame_stack, padding)
        if not vector.goal_dim:
            raise ValueError(f"SingleGoalEnv takes an environment with goals, and {type(vector).__name__} has none")
        goal = Box(-np.inf, np.inf, (vector.goal_dim,), np.float32)
        self.observation_space = Dict({"observation": self._stack, "achieved_goal": goal, "desired_goal": goal})

    def compute_reward(self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Any) -> Any:  # noqa: ARG002
        """The reward of goals (G,), or the rewards (M,) of (M, G)."""
        return self._compute(self._vector.compute_reward, achieved_goal, desired_goal)

    def compute_terminated(self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Any) -> Any:  # noqa: ARG002
        """Whether goals (G,) end the return, or where (M,) those of (M, G) do."""
        return self._compute(self._vector.compute_terminated, achieved_goal, desired_goal)

    def compute_truncated(self, achieved_goal: NDArray[Any], desired_goal: NDArray[Any], info: Any) -> Any:  # noqa: ARG002
        """Never: a time limit is no function of goals."""
        return np.zeros(len(achieved_goal), np.bool_) if np.ndim(achieved_goal) == 2 else False

    def _observe(self) -> dict[str, NDArray[Any]]:
        goals = self._vector.goals()
        return {
            "observation": super()._observe(),
            "achieved_goal": goals.achieved[0].copy(),
            "desired_goal": goals.desired[0].copy(),
        }

    def _inform(self) -> dict[str, Any]:
        return {"is_success": bool(self._vector.is_success(*self._vector.goals())[0])}

    @staticmethod
    def _compute(function: Callable[..., NDArray[Any]], achieved: NDArray[Any], desired: NDArray[Any]) -> Any:
        result = function(np.atleast_2d(achieved), np.atleast_2d(desired))
        return result if np.ndim(achieved) == 2 else result[0].item()
