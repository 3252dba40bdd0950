"""A small environment of Gymnasium with goals, as a module of a user has it."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict


class Line(gymnasium.Env[Any, Any]):
    """A place on a line, moved by -2 to 6; the goal is within 1 of a random one, and ends the episode."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    action_space = Box(-2, 6, (1,), np.float32)
    observation_space = Dict(
        {"observation": Box(-99, 99, (2,)), "achieved_goal": Box(-99, 99, (1,)), "desired_goal": Box(-99, 99, (1,))}
    )

    def __init__(self, render_mode: str | None = None, dense: bool = False) -> None:
        self.render_mode, self.dense = render_mode, dense

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.place, self.goal = self.np_random.uniform(0, 9, 2)
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        self.place += action[0]
        seen = self.observe()
        goals = (seen["achieved_goal"], seen["desired_goal"], {})
        return seen, self.compute_reward(*goals), bool(self.compute_terminated(*goals)), False, {}

    def observe(self) -> dict[str, Any]:
        return {
            "observation": np.array([self.place, 0]),
            "achieved_goal": np.array([self.place]),
            "desired_goal": np.array([self.goal]),
        }

    def compute_reward(self, achieved: Any, desired: Any, info: Any) -> Any:
        distance = np.linalg.norm(achieved - desired, axis=-1)
        return -distance if self.dense else -(distance > 1).astype(float)

    def compute_terminated(self, achieved: Any, desired: Any, info: Any) -> bool:
        return bool(np.linalg.norm(achieved - desired) <= 1)  # of one goal alone, as in gymnasium-robotics

    def render(self) -> Any:
        return np.full((10, 20, 3), int(20 * abs(self.place)) % 256, np.uint8)


for name, kwargs in {"Line-v0": {}, "LineDense-v0": {"dense": True}}.items():
    gymnasium.register(name, Line, max_episode_steps=6, kwargs=kwargs)
