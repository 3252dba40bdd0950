"""Rotation prediction."""

from typing import Any

import torch
from torch import Tensor

from aux_tasks.base import TaskSetting
from aux_tasks.transform import TransformTask


class Rotation(TransformTask):
    """Which of four rotations was applied (Gidaris et al. 2018, "Unsupervised representation learning by predicting
    image rotations", equation 2). Every frame of a stack turns the same way.

    Args:
        setting: the run.
        all_rotations: all four of each observation, as in the paper, at four times the cost; else one drawn at random.
        options: of `TransformTask`.

    Raises:
        ValueError: the observation is not square.
    """

    classes = ("0", "90", "180", "270")
    question = "By how many degrees was the picture turned counter-clockwise?"

    def __init__(self, setting: TaskSetting, *, all_rotations: bool = False, **options: Any) -> None:
        super().__init__(setting, **options)
        self.all_rotations = all_rotations
        _, height, width = setting.obs_shape
        if height != width:
            raise ValueError(f"rotation needs square observations, got {height}x{width}")

    def transform(self, obs: Tensor, label: Tensor) -> Tensor:
        """Turn sample i counter-clockwise by 90 * label[i] degrees; exact, without interpolation."""
        turned = torch.stack([torch.rot90(obs, quarter, dims=(2, 3)) for quarter in range(4)])
        return turned[label, torch.arange(len(obs), device=obs.device)]

    def _draw(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        if not self.all_rotations:
            return super()._draw(obs)
        label = torch.arange(4, device=obs.device).repeat(len(obs))
        return self.transform(self._crop(obs).repeat_interleave(4, 0), label), label
