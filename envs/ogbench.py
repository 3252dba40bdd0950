"""Mazes and cubes of OGBench (Park et al. 2025) behind Gymnasium's goal interface, without its data sets."""

import re
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Space
from numpy.typing import NDArray

NAMES = re.compile(r"(?P<kind>cube|pointmaze|antmaze|humanoidmaze)-(?!teleport)\w+-v\d+")
CUBE_TOLERANCE = 0.04  # metres


class OGBenchGoals(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Goals are positions: x and y of a maze's walker, or x, y and z of each cube. Reaching one is worth 1, and ends.

    An episode is one of the environment's evaluation tasks, drawn from the seed.

    Args:
        env: of OGBench, with states.
        name: its id.

    Raises:
        ValueError: its goals are no positions.
    """

    def __init__(self, env: gymnasium.Env[Any, Any], name: str) -> None:
        super().__init__(env)
        found = NAMES.fullmatch(name)
        if not found:
            raise ValueError(f"env.id={name}: of OGBench there are cube-, pointmaze-, antmaze- and humanoidmaze- ids")
        base: Any = env.unwrapped
        self._base = base
        self._cubes = found["kind"] == "cube"
        self._tolerance = CUBE_TOLERANCE if self._cubes else float(base._goal_tol)
        observed, _ = self.reset(seed=0)
        spaces: dict[str, Space[Any]] = {
            key: Box(-np.inf, np.inf, values.shape, np.float64) for key, values in observed.items()
        }
        self.observation_space = Dict(spaces)

    @property
    def unwrapped(self) -> Any:
        """This wrapper, which has the functions of goals."""
        return self

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """See `gymnasium.Env.reset`. OGBench draws from NumPy's global stream, which is put back."""
        state = np.random.get_state()
        np.random.seed(seed)
        self.env.action_space.seed(seed)  # it settles the bodies by random actions
        observation, info = self.env.reset(seed=seed, options=options)
        np.random.set_state(state)
        return self._observe(observation), info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._observe(observation), float(reward), terminated, truncated, info

    def compute_reward(self, achieved: NDArray[Any], desired: NDArray[Any], info: Any) -> NDArray[np.float64]:  # noqa: ARG002
        """Rewards (M,) of goals (M, G): 1 where all parts are within the tolerance, else 0."""
        return self._is_success(achieved, desired).astype(np.float64)

    def compute_terminated(self, achieved: NDArray[Any], desired: NDArray[Any], info: Any) -> NDArray[np.bool_]:  # noqa: ARG002
        """Where (M,) the goal is reached."""
        return self._is_success(achieved, desired)

    def _is_success(self, achieved: NDArray[Any], desired: NDArray[Any]) -> NDArray[np.bool_]:
        away = (achieved - desired).reshape(*achieved.shape[:-1], -1, 3 if self._cubes else 2)
        return np.asarray((np.linalg.norm(away, axis=-1) <= self._tolerance).all(-1))

    def _observe(self, observation: NDArray[Any]) -> dict[str, NDArray[Any]]:
        base = self._base
        if self._cubes:
            joints = [base._data.joint(f"object_joint_{i}").qpos[:3] for i in range(base._num_cubes)]
            goals = (np.ravel(joints), np.ravel(base._data.mocap_pos[base._cube_target_mocap_ids]))
        else:
            goals = (np.array(base.get_xy()), np.array(base.cur_goal_xy))
        return dict(zip(("observation", "achieved_goal", "desired_goal"), (observation, *goals), strict=True))
