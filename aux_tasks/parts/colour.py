"""Lightness and colour (CIE Lab) of observations."""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from aux_tasks.base import TaskSetting

XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))  # of linear RGB
RGB = (  # the inverse
    (3.24048134, -1.53715152, -0.49853633),
    (-0.96925495, 1.87599000, 0.04155593),
    (0.05564664, -0.20404134, 1.05731107),
)
WHITE = (0.95047, 1.0, 1.08883)  # of daylight, D65


def frame_channels(setting: TaskSetting) -> int:
    """Return 1 if the encoder reads gray frames, 3 if it reads colour.

    Raises:
        ValueError: neither.
    """
    channels = setting.obs_shape[0] // setting.frame_stack
    if channels not in (1, 3):
        raise ValueError(f"frames must be gray (1 channel) or colour (3), got {channels} channels a frame")
    return channels


def to_lab(obs: Tensor) -> Tensor:
    """Return Lab (B, F, 3, H, W), L in [0, 100], of uint8 colour frames (B, F * 3, H, W)."""
    return rgb_to_lab(obs.reshape(len(obs), -1, 3, *obs.shape[2:]).float() / 255)


def from_lab(lightness: Tensor, colour: Tensor) -> Tensor:
    """Return float pixels in [0, 255], (B, F * 3, H, W), of L (B, F, 1, H, W) and ab (B, F, 2, H, W)."""
    return lab_to_rgb(torch.cat([lightness, colour], dim=2)).flatten(1, 2) * 255


def rgb_to_lab(pixels: Tensor) -> Tensor:
    """Return CIE Lab (..., 3, H, W) of sRGB (..., 3, H, W) in [0, 1], by the standard's formulas for daylight (D65)."""
    linear = torch.where(pixels > 0.04045, ((pixels + 0.055) / 1.055) ** 2.4, pixels / 12.92)
    relative = [channel / white for channel, white in zip(_mix(XYZ, linear), WHITE, strict=True)]
    x, y, z = (torch.where(t > 0.008856, t.clamp_min(0.008856) ** (1 / 3), 7.787 * t + 4 / 29) for t in relative)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Return sRGB (..., 3, H, W) of CIE Lab (..., 3, H, W), each channel clamped to [0, 1]."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    roots = torch.stack([y + a / 500, y, (y - b / 200).clamp_min(0)], dim=-3)
    relative = torch.where(roots > 0.2068966, roots**3, (roots - 4 / 29) / 7.787)
    xyz = torch.stack([channel * white for channel, white in zip(relative.unbind(-3), WHITE, strict=True)], dim=-3)
    linear = torch.stack(_mix(RGB, xyz), dim=-3)
    pixels = torch.where(linear > 0.0031308, 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055, 12.92 * linear)
    return pixels.clamp(0, 1)


def _mix(matrix: Sequence[tuple[float, float, float]], pixels: Tensor) -> list[Tensor]:
    """Return a 3 x 3 matrix times the channels; its numbers stay in Python, a tensor would be copied to the device."""
    first, second, third = pixels.unbind(-3)
    return [first * a + second * b + third * c for a, b, c in matrix]


@cache
def in_gamut(bin_size: float) -> Tensor:
    """Return the centres (Q, 2) of the ab squares of that size that hold any of the 256^3 RGB colours.

    Colours on the faces of the RGB cube, where one channel is 0 or 1, suffice: those inside fall into the same squares.
    """
    level = torch.linspace(0, 1, 256)
    square = torch.cartesian_prod(level, level)
    faces = [
        torch.cat([square[:, :axis], torch.full((len(square), 1), end), square[:, axis:]], dim=1)
        for axis in range(3)
        for end in (0.0, 1.0)
    ]
    ab = rgb_to_lab(torch.cat(faces).T[:, None])[1:, 0]
    centres: Tensor = torch.unique((ab / bin_size).round(), dim=1)
    return centres.T * bin_size
