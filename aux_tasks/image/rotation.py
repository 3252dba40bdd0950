"""Rotation prediction."""

from typing import Any

import torch
from torch import Tensor

from aux_tasks.transform import TransformTask


class Rotation(TransformTask):
    """Which of four rotations was applied (Gidaris et al. 2018, "Unsupervised representation learning by predicting
    image rotations", equation 2). Every frame of a stack turns the same way.

    Raises:
        ValueError: the observation is not square.
    """

    classes = ("0", "90", "180", "270")

    def __init__(self, obs_shape: tuple[int, int, int], *args: Any, **kwargs: Any) -> None:
        super().__init__(obs_shape, *args, **kwargs)
        if obs_shape[1] != obs_shape[2]:
            raise ValueError(f"rotation needs square observations, got {obs_shape[1]}x{obs_shape[2]}")

    def transform(self, obs: Tensor, label: Tensor) -> Tensor:
        """Turn sample i counter-clockwise by 90 * label[i] degrees; exact, without interpolation."""
        turned = torch.stack([torch.rot90(obs, quarter, dims=(2, 3)) for quarter in range(4)])
        return turned[label, torch.arange(len(obs), device=obs.device)]
