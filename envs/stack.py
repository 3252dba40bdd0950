"""The last few frames of each copy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from envs.base import Padding, VectorStep


class FrameStack:
    """Stacks of single frames, oldest first.

    Both methods return the one buffer that the next `push` overwrites: copy what you keep.
    """

    def __init__(
        self,
        num_envs: int,
        frame_shape: tuple[int, int, int],
        frame_stack: int,
        padding: Padding = "zeros",
        dtype: type[np.uint8 | np.float32] = np.uint8,
    ) -> None:
        """`frame_shape` is (C, H, W); the stacks are (N, frame_stack * C, H, W).

        `padding` stands in place of the frames before an episode's first: zeros, or that first frame again.
        """
        channels, height, width = frame_shape
        self._repeat = padding == "repeat"
        self._slots = np.zeros((num_envs, frame_stack, channels, height, width), dtype=dtype)
        self._stacks = self._slots.reshape(num_envs, frame_stack * channels, height, width)

    def reset(self, frame: NDArray[Any]) -> NDArray[Any]:
        """Start every stack again with `frame` (N, C, H, W), the first of an episode."""
        self._slots[:] = frame[:, None] if self._repeat else 0
        self._slots[:, -1] = frame
        return self._stacks

    def push(self, step: VectorStep) -> NDArray[Any]:
        """Append the newest frames; a copy whose step is `first` starts again."""
        for i in range(self._slots.shape[1] - 1):  # slot by slot: one overlapping copy would allocate
            self._slots[:, i] = self._slots[:, i + 1]
        self._slots[step.first] = step.frame[step.first, None] if self._repeat else 0
        self._slots[:, -1] = step.frame
        return self._stacks
