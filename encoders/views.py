"""Random views of pixels, from which a task learns what does not matter."""

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.augment import LUMA, random_shift

QUARTER_TURN = ((0.168, 0.329, -0.497), (-0.328, 0.036, 0.292), (1.250, -1.047, -0.203))  # of the colours, in YIQ


@dataclass(frozen=True)
class Views:
    """A random view of each sample: moved, then recoloured, then noisy.

    Every sample draws its own parameters, which hold for all frames of its stack. What leaves the image repeats the
    border.
    """

    pad: int = 0  # largest shift, whole pixels, without interpolation
    shift: float = 0.0  # largest shift, share of the side; a view of less than the whole image lies anywhere in it
    area: tuple[float, float] = (1.0, 1.0)  # shown share of the image; above 1 shrinks it
    aspect: float = 1.0  # largest stretch of one side against the other
    rotation: float = 0.0  # largest angle, degrees
    flip: float = 0.0  # probability of a mirror image
    intensity: float = 0.0  # gain of the pixels, 1 -+ intensity
    contrast: float = 0.0  # gain of their distance to the sample's mean, 1 -+ contrast
    saturation: float = 0.0  # gain of the colours, 1 -+ saturation
    hue: float = 0.0  # largest turn of the colours, share of the circle
    gray: float = 0.0  # probability of no colours
    noise: float = 0.0  # standard deviation, levels; the one thing that each pixel draws for itself

    def __call__(self, obs: Tensor, generator: torch.Generator, frame_stack: int = 1) -> Tensor:
        """Draw one view of each sample.

        Args:
            obs: (B, C, H, W) pixels in [0, 255]; saturation, hue and gray need C = 3 * frame_stack.
            generator: source of the parameters, on the device of `obs`.
            frame_stack: frames in a sample.

        Returns:
            (B, C, H, W) float pixels in [0, 255], in channels-last memory.
        """
        if self.pad:
            obs = random_shift(obs, self.pad, generator)
        pixels = obs.float()
        if self.flip or (self.shift, self.area, self.aspect, self.rotation) != (0, (1, 1), 1, 0):
            grid = F.affine_grid(self.affine(obs, generator), list(obs.shape), align_corners=False)
            pixels = F.grid_sample(pixels, grid, padding_mode="border", align_corners=False)
        if obs.shape[1] == 3 * frame_stack and (self.saturation or self.hue or self.gray):
            frames = pixels.view(-1, frame_stack, 3, *obs.shape[2:])
            pixels = torch.einsum("bij,bfjhw->bfihw", self.recolouring(obs, generator), frames).flatten(1, 2)
        intensity, contrast = (self._around_one(x, obs, generator) for x in (self.intensity, self.contrast))
        mean = pixels.mean((1, 2, 3), keepdim=True)
        pixels = (mean + contrast * (pixels - mean)) * intensity
        if self.noise:
            pixels = pixels + self.noise * torch.randn(pixels.shape, generator=generator, device=obs.device)
        return pixels.clamp(0, 255).contiguous(memory_format=torch.channels_last)

    def affine(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 2, 3) maps from positions of the view to positions of the image, both in [-1, 1], for `affine_grid`."""
        height, width = obs.shape[2:]
        u = torch.rand(6, len(obs), generator=generator, device=obs.device)
        smallest, largest = self.area
        area = smallest + (largest - smallest) * u[0]
        stretch = self.aspect ** (u[1] - 0.5)
        sides = (area.sqrt() * torch.stack([stretch, 1 / stretch])).clamp(max=max(1, math.sqrt(largest)))
        x, y = (2 * u[2:4] - 1) * (2 * self.shift + F.relu(1 - sides))
        angle = math.radians(self.rotation) * (2 * u[4] - 1)
        cos, sin = angle.cos(), angle.sin()
        across, down = torch.where(u[5] < self.flip, -sides[0], sides[0]), sides[1]
        entries = (across * cos, -down * sin * height / width, x, across * sin * width / height, down * cos, y)
        return torch.stack(entries, dim=1).view(-1, 2, 3)

    def recolouring(self, obs: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 3, 3) maps of RGB that keep the brightness, and turn and scale the colours around it."""
        luma, turn, same = _colour_maps(obs.device)
        u = torch.rand(3, len(obs), 1, 1, generator=generator, device=obs.device)
        gain = (1 + self.saturation * (2 * u[0] - 1)) * (u[1] >= self.gray)
        angle = 2 * math.pi * self.hue * (2 * u[2] - 1)
        return luma + gain * (angle.cos() * (same - luma) + angle.sin() * turn)

    @staticmethod
    def _around_one(reach: float, obs: Tensor, generator: torch.Generator) -> Tensor:
        """(B, 1, 1, 1) uniform in 1 -+ reach."""
        return 1 + reach * (2 * torch.rand(len(obs), 1, 1, 1, generator=generator, device=obs.device) - 1)


@cache
def _colour_maps(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Made once: a constant that is sent to a device makes the host wait for it."""
    gray = torch.tensor((LUMA,) * 3, device=device)
    return gray, torch.tensor(QUARTER_TURN, device=device), torch.eye(3, device=device)


VIEWS = {
    "shift": Views(pad=4, intensity=0.1),  # cheap, and safe for games: nothing is mirrored, turned or cut
    "digits": Views(shift=0.1, area=(0.64, 1.5), rotation=20, intensity=0.3, contrast=0.3, noise=8),
    "photo": Views(
        area=(0.2, 1.0), aspect=4 / 3, flip=0.5, intensity=0.4, contrast=0.4, saturation=0.4, hue=0.1, gray=0.2
    ),
}
