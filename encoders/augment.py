"""Augmentation of uint8 pixels, per sample and reproducible."""

import torch
import torch.nn.functional as F
from torch import Tensor

SCALES = (1, 2, 4, 8, 16)  # cells across a picture that `color_fields` makes
LUMA = (0.299, 0.587, 0.114)  # weights of RGB in the gray of equal brightness (ITU-R BT.601)


def random_shift(obs: Tensor, pad: int, generator: torch.Generator, num_shifts: int = 1) -> Tensor:
    """Move each image, or each of its copies, by up to `pad` pixels, repeating its border (Kostrikov et al. 2020, DrQ).

    All channels of a sample move together, so a frame stack stays consistent.

    Args:
        obs: (B, C, H, W) pixels of any type.
        pad: the largest shift, pixels; offsets are uniform in [-pad, pad] for both axes.
        generator: the source of the offsets, on the device of `obs`.
        num_shifts: K, shifted copies of each image.

    Returns:
        (K * B, C, H, W) in channels-last memory, a whole batch before the next copy of it.
    """
    batch, channels, height, width = obs.shape
    offsets = torch.randint(-pad, pad + 1, (2, num_shifts * batch, 1), generator=generator, device=obs.device)
    # Indexing with clamped coordinates is padding by replication and cropping in one copy.
    rows = (torch.arange(height, device=obs.device) + offsets[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=obs.device) + offsets[1]).clamp_(0, width - 1)
    sample = torch.arange(batch, device=obs.device).repeat(num_shifts)[:, None]
    index = (sample * height + rows)[:, :, None] * width + columns[:, None, :]
    # Whole pixels of one long list: a fifth of the time of indexing three axes.
    pixels = obs.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, index.flatten())
    return pixels.view(-1, height, width, channels).permute(0, 3, 1, 2)


def overlay(obs: Tensor, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """The mean of each colour observation (B, 3 * T, H, W) uint8 and a random one of (M, 3, H, W) uint8 pictures, the
    same for all its frames (Hansen and Wang 2021, SODA).
    """
    chosen = torch.randint(len(pictures), (len(obs),), generator=generator, device=obs.device)
    picture = pictures[chosen].repeat(1, obs.shape[1] // 3, 1, 1)
    return (obs // 2 + picture // 2).contiguous(memory_format=torch.channels_last)


def random_conv(obs: Tensor, generator: torch.Generator) -> Tensor:
    """Each colour observation (B, 3 * T, H, W) uint8 through a 3 x 3 convolution of its own with normal weights, then a
    sigmoid: other colours and textures, the same for all its frames (Lee et al. 2020, "Network randomization").
    """
    size, channels, height, width = obs.shape
    weight = torch.randn(size, 3, 3, 3, 3, generator=generator, device=obs.device).repeat_interleave(channels // 3, 0)
    frames = F.pad(obs.reshape(1, -1, height, width).float() / 255, (1, 1, 1, 1), mode="replicate")
    convolved = F.conv2d(frames, weight.flatten(0, 1), groups=size * channels // 3).sigmoid()
    return convolved.mul(255).round().to(torch.uint8).view(obs.shape).contiguous(memory_format=torch.channels_last)


def color_fields(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Pictures (count, 3, H, W) uint8 without content: noise of several scales, summed and stretched to [0, 255]."""
    total = torch.zeros(count, 3, height, width, device=generator.device)
    for cells in SCALES:
        noise = torch.rand(count, 3, cells, cells, generator=generator, device=generator.device)
        total += F.interpolate(noise, (height, width), mode="bilinear", align_corners=False) / cells**0.5
    low, high = total.amin((1, 2, 3), keepdim=True), total.amax((1, 2, 3), keepdim=True)
    return ((total - low) / (high - low) * 255).to(torch.uint8)


def overlay_pictures(height: int, width: int) -> Tensor:
    """The pictures (256, 3, H, W) uint8 that `overlay` mixes in where none are given: the same for every seed."""
    return color_fields(256, height, width, torch.Generator().manual_seed(0))


def luma(pixels: Tensor) -> Tensor:
    """Gray (B, K, H, W) float32 of K colour frames (B, 3 * K, H, W), by the weights of ITU-R BT.601."""
    red, green, blue = (pixels[:, colour::3].float() for colour in range(3))
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
