"""The contract of a task whose representation defines goals."""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxTask
from encoders import Encoder


class GoalTask(AuxTask):
    """An auxiliary task that also maps pictures to goals.

    `encoder` is passed in, as in every task. Where `uses_context`, a picture is embedded beside the first picture of
    its episode.
    """

    uses_context: ClassVar[bool] = False
    goal_dim: int  # G

    @abstractmethod
    def embed(self, obs: Tensor, encoder: Encoder, context: Tensor | None = None) -> Tensor:
        """Return the goals (B, G) that pictures (B, C, H, W) show.

        Args:
            obs: uint8 pixels.
            encoder: the shared encoder.
            context: (B, C, H, W) the first picture of each one's episode, for tasks that use it.
        """

    def compared(self, goals: Tensor) -> Tensor:
        """Return the part (B, G') of goals (B, G) that rewards depend on: all of it, unless a context is beside it."""
        return goals

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Return the reward (B,) of goals (B, G) reached: the negative Euclidean distance."""
        distance: Tensor = torch.linalg.vector_norm(achieved - desired, dim=1)
        return -distance

    def imagine(self, achieved: Tensor) -> Tensor:  # noqa: ARG002
        """Return goals (B, G) that could be reached in the scenes where (B, G) was achieved.

        Random numbers come from `generator`. A task that uses a context keeps its part of the embedding.

        Raises:
            ValueError: the task cannot imagine goals.
        """
        raise ValueError(f"{type(self).__name__} cannot imagine goals: goal.source=env takes those of the environment")

    def decode(self, goals: Tensor) -> Tensor | None:  # noqa: ARG002
        """Return pictures (B, C, H, W) uint8 of goals (B, G), or None where the task has no decoder."""
        return None
