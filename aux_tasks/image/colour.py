"""Lightness and colour (CIE Lab) of observations."""

from functools import cache

import torch
from kornia.color import lab_to_rgb, rgb_to_lab
from torch import Tensor

from aux_tasks.base import TaskSetting


def frame_channels(setting: TaskSetting) -> int:
    """1 if the encoder reads gray frames, 3 if it reads colour.

    Raises:
        ValueError: neither.
    """
    channels = setting.obs_shape[0] // setting.frame_stack
    if channels not in (1, 3):
        raise ValueError(f"frames must be gray (1 channel) or colour (3), got {channels} channels a frame")
    return channels


def to_lab(obs: Tensor) -> Tensor:
    """Lab (B, F, 3, H, W), L in [0, 100], of uint8 colour frames (B, F * 3, H, W)."""
    return rgb_to_lab(obs.reshape(len(obs), -1, 3, *obs.shape[2:]).float() / 255)


def from_lab(lightness: Tensor, colour: Tensor) -> Tensor:
    """Float pixels in [0, 255], (B, F * 3, H, W), of L (B, F, 1, H, W) and ab (B, F, 2, H, W)."""
    return lab_to_rgb(torch.cat([lightness, colour], dim=2)).flatten(1, 2) * 255


@cache
def in_gamut(bin_size: float) -> Tensor:
    """Centres (Q, 2) of the ab squares of that size that hold any colour of a screen."""
    level = torch.linspace(0, 1, 52)  # in steps of 5 / 255
    ab = rgb_to_lab(torch.cartesian_prod(level, level, level).T[:, None])[1:, 0]
    centres: Tensor = torch.unique((ab / bin_size).round(), dim=1)
    return centres.T * bin_size
