"""Augmentation of uint8 pixels, per sample and reproducible."""

import torch
from torch import Tensor


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
    place = (sample * height + rows)[:, :, None] * width + columns[:, None, :]
    # Whole pixels of one long list: a fifth of the time of indexing three axes.
    pixels = obs.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, place.flatten())
    return pixels.view(-1, height, width, channels).permute(0, 3, 1, 2)


def luma(pixels: Tensor) -> Tensor:
    """Gray (B, K, H, W) float32 of K colour frames (B, 3 * K, H, W), by the weights of ITU-R BT.601."""
    red, green, blue = (pixels[:, colour::3].float() for colour in range(3))
    return 0.299 * red + 0.587 * green + 0.114 * blue
