"""What every vector of pixel environments gives: single frames, raw rewards, explicit resets."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from gymnasium.spaces import Box, Discrete
from numpy.typing import NDArray

Actions: TypeAlias = NDArray[Any]  # (N,) integers or (N, A) floats, as the action space says


@dataclass(frozen=True)
class VectorStep:
    """One step of N environments. Frames are single, never stacked: replay and the actor stack them.

    When `game_over`, `frame` is the episode's last one; the next step ignores the action, returns the first frame of
    a new episode, reward 0, and `first` True: that step is no transition. A lost life (where the environment ends
    returns there) is `terminated` alone: the game goes on, and so does its score.
    """

    frame: NDArray[np.uint8]  # (N, C, H, W) the newest frame of each copy
    reward: NDArray[np.float32]  # (N,) raw, never clipped
    terminated: NDArray[np.bool_]  # (N,) the return ends here: do not bootstrap
    truncated: NDArray[np.bool_]  # (N,) cut short: bootstrap from `frame`
    game_over: NDArray[np.bool_]  # (N,) the whole episode ended, its score is complete; the next step is `first`
    first: NDArray[np.bool_]  # (N,) `frame` opens an episode; the action was ignored


class VectorEnv(ABC):
    """N copies of a pixel environment, stepped together."""

    num_envs: int
    action_space: Discrete | Box  # of one copy: A choices, or A float32 numbers in [-1, 1]
    frame_shape: tuple[int, int, int]  # (C, H, W)

    @abstractmethod
    def reset(self, seed: int) -> NDArray[np.uint8]:
        """Start an episode in every copy, whatever it was doing; copy i is seeded from (seed, i).

        Two calls with one seed give the same frames and the same future, which makes exact resuming possible.

        Returns:
            (N, C, H, W) the first frames.
        """

    @abstractmethod
    def step(self, action: Actions) -> VectorStep:
        """Advance every copy.

        Args:
            action: (N,) integers in [0, A), or (N, A) floats in [-1, 1].

        Raises:
            ValueError: an action is out of range or NaN, or the shape or kind is wrong.
        """

    def labels(self) -> dict[str, NDArray[Any]]:
        """What is known of the moment that the newest frames show, (N,) each, integers or floats."""
        return {}

    def close(self) -> None:  # noqa: B027 - most environments hold nothing
        """Free what the copies hold. Closing twice is allowed, stepping afterwards is not."""

    def _check_action(self, action: Actions) -> None:
        space, shape = self.action_space, action.shape
        if isinstance(space, Discrete):
            expected, low, high = f"integers of shape {(self.num_envs,)}", 0, int(space.n) - 1
            fits = shape == (self.num_envs,) and np.issubdtype(action.dtype, np.integer)
        else:
            expected, low, high = f"floats of shape {(self.num_envs, *space.shape)}", -1, 1
            fits = shape == (self.num_envs, *space.shape) and np.issubdtype(action.dtype, np.floating)
        if not fits:
            raise ValueError(f"action must be {expected}; got {action.dtype} of shape {shape}")
        if not ((low <= action) & (action <= high)).all():  # NaN fails too
            raise ValueError(f"action {action.tolist()} is out of range: use {low} to {high}")
