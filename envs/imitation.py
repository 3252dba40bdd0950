"""An environment whose reward is how closely its pictures follow a demonstration, moment by moment."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.base import Actions, VectorEnv, VectorStep
from envs.goals import GoalSpace, Pixels


class ImitationVector(VectorEnv):
    """The copies of an environment, to be played as a demonstration was (Sermanet et al. 2018, "Time-contrastive
    networks", section III.C).

    At age t of an episode, the reward is that of the space for the embedding v_t of the newest frame and w_t of the
    demonstration. Its last moment stands for all after it. Frames are (2 G, 1, 1) numbers, v_t and the w_t+1 that the
    next step is compared with: without it, no policy could know what time it is.

    Args:
        env: gives pixels; it is closed with this one.
        space: of pictures, which may be of several cameras.
        demonstration: (T, C, H, W) its pictures, one a step.

    Raises:
        ValueError: the environment gives states, or the demonstration has fewer than two pictures.
    """

    frame_dtype = np.float32

    def __init__(self, env: VectorEnv, space: GoalSpace, demonstration: Pixels) -> None:
        if env.frame_dtype != np.uint8:
            raise ValueError("a demonstration is of pictures, but this environment gives states: env.observe=pixels")
        if len(demonstration) < 2:
            raise ValueError(f"a demonstration has two pictures or more, this one {len(demonstration)}")
        self._env, self._space = env, space
        self._wanted = space.embed(demonstration, demonstration[:1].repeat(len(demonstration), 0))  # (T, G)
        self.num_envs, self.action_space = env.num_envs, env.action_space
        self.frame_shape = (2 * space.goal_dim, 1, 1)

    def reset(self, seed: int) -> NDArray[np.float32]:
        """See `VectorEnv.reset`."""
        frame = self._env.reset(seed)
        self._context, self._age = frame.copy(), np.zeros(self.num_envs, np.int64)
        return self._frame(self._space.embed(frame, self._context))

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`: the reward is that of imitation."""
        step = self._env.step(action)
        self._context[step.first] = step.frame[step.first]
        self._age = np.where(step.first, 0, self._age + 1)
        embedding = self._space.embed(step.frame, self._context)
        reward = np.where(step.first, 0, self._space.reward(embedding, self._at(self._age))).astype(np.float32)
        return replace(step, frame=self._frame(embedding), reward=reward)

    def labels(self) -> dict[str, NDArray[Any]]:
        """See `VectorEnv.labels`."""
        return self._env.labels()

    def close(self) -> None:
        """See `VectorEnv.close`."""
        self._env.close()

    def _at(self, age: NDArray[np.int64]) -> NDArray[np.float32]:
        """What the demonstration shows (N, G) at these ages (N,)."""
        return self._wanted[np.minimum(age, len(self._wanted) - 1)]

    def _frame(self, embedding: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([embedding, self._at(self._age + 1)], axis=1)[:, :, None, None]
