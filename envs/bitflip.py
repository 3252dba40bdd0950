"""Bit flipping: the world in which hindsight is the difference between learning everything and nothing."""

from dataclasses import dataclass

import numpy as np
from gymnasium.spaces import Discrete
from numpy.typing import NDArray

from envs.base import Actions, EnvConfig, Goals, VectorEnv, VectorStep, copy_rngs
from harness.checks import check_least


@dataclass(frozen=True)
class BitFlipConfig(EnvConfig):
    """Bits to be flipped, one a step, until they are those of a goal (Andrychowicz et al. 2017, HER, section 3.1)."""

    name: str = "bitflip"
    num_envs: int = 16
    bits: int = 15  # of a state; also the steps until truncation

    def __post_init__(self) -> None:
        check_least(1, "env", num_envs=self.num_envs, bits=self.bits)

    def build(self, labels: bool = False) -> "BitFlipVector":  # noqa: ARG002
        """See `EnvConfig.build`."""
        return BitFlipVector(self)

    def display(self, size: int) -> None:
        """See `EnvConfig.display`: there is nothing to see."""


class BitFlipVector(VectorEnv):
    """N copies. States and goals are bits; action i flips bit i. Reward: 0 where the goal is reached, which terminates,
    and -1 elsewhere.
    """

    frame_dtype = np.float32

    def __init__(self, config: BitFlipConfig) -> None:
        self._bits, self.num_envs, self.goal_dim = config.bits, config.num_envs, config.bits
        self.action_space = Discrete(config.bits)
        self.frame_shape = (config.bits, 1, 1)
        self._state, self._goal = np.zeros((2, config.num_envs, config.bits), np.float32)
        self._age = np.zeros(config.num_envs, np.int64)

    def reset(self, seed: int) -> NDArray[np.float32]:
        """See `VectorEnv.reset`. `seed` is any non-negative integer."""
        self._rngs = copy_rngs(seed, self.num_envs)
        self._over = np.zeros(self.num_envs, np.bool_)
        self._start(~self._over)
        return self._frame()

    def step(self, action: Actions) -> VectorStep:
        """See `VectorEnv.step`."""
        self._check_action(action)
        first, playing = self._over, np.flatnonzero(~self._over)
        self._state[playing, action[playing]] = 1 - self._state[playing, action[playing]]
        self._age += 1
        self._start(first)
        reward = np.where(first, 0, self.compute_reward(self._state, self._goal)).astype(np.float32)
        terminated = self.compute_terminated(self._state, self._goal) & ~first
        truncated = (self._age == self._bits) & ~terminated
        self._over = terminated | truncated
        return VectorStep(self._frame(), reward, terminated, truncated, self._over, first)

    def goals(self) -> Goals:
        """See `VectorEnv.goals`."""
        return Goals(self._state.copy(), self._goal.copy())

    def compute_reward(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """See `VectorEnv.compute_reward`."""
        return np.where(self.is_success(achieved, desired), 0, -1).astype(np.float32)

    def compute_terminated(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:
        """See `VectorEnv.compute_terminated`."""
        return self.is_success(achieved, desired)

    def is_success(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.bool_]:
        """See `VectorEnv.is_success`."""
        equal: NDArray[np.bool_] = (achieved == desired).all(axis=1)
        return equal

    def goal_distance(self, achieved: NDArray[np.float32], desired: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bits that differ."""
        bits: NDArray[np.float32] = (achieved != desired).sum(axis=1, dtype=np.float32)
        return bits

    def _start(self, copies: NDArray[np.bool_]) -> None:
        """Draw a state and another goal; one generator a copy, so that its episodes do not depend on the others."""
        self._age[copies] = 0
        for i in np.flatnonzero(copies):
            self._state[i], self._goal[i] = self._rngs[i].integers(2, size=(2, self._bits))
            while (self._state[i] == self._goal[i]).all():
                self._goal[i] = self._rngs[i].integers(2, size=self._bits)

    def _frame(self) -> NDArray[np.float32]:
        return self._state.reshape(-1, self._bits, 1, 1).copy()
