"""Rotation prediction."""

from typing import Any

import torch
from torch import Tensor

from aux_tasks.base import TaskSetting
from aux_tasks.transform import TransformTask


class Rotation(TransformTask):
    """Which of four rotations was applied (Gidaris et al. 2018, "Unsupervised representation learning by predicting
    image rotations", equation 2). Every frame of a stack turns the same way.

    Raises:
        ValueError: the observation is not square.
    """

    classes = ("0", "90", "180", "270")

    def __init__(self, setting: TaskSetting, **options: Any) -> None:
        super().__init__(setting, **options)
        _, height, width = setting.obs_shape
        if height != width:
            raise ValueError(f"rotation needs square observations, got {height}x{width}")

    def transform(self, obs: Tensor, label: Tensor) -> Tensor:
        """Turn sample i counter-clockwise by 90 * label[i] degrees; exact, without interpolation."""
        turned = torch.stack([torch.rot90(obs, quarter, dims=(2, 3)) for quarter in range(4)])
        return turned[label, torch.arange(len(obs), device=obs.device)]
