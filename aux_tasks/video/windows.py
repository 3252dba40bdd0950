"""Moments of clips, how much changes between them, and the score over the clips that can be answered."""

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, over_valid


def draw_times(size: int, count: int, length: int, gap: int, generator: torch.Generator) -> Tensor:
    """(size, count) rising times in [0, length), at least `gap` apart: any choice is as likely as any other."""
    free = length - (count - 1) * (gap - 1)
    chosen = torch.rand(size, free, generator=generator, device=generator.device).argsort(1)[:, :count]
    return chosen.sort(1).values + (gap - 1) * torch.arange(count, device=chosen.device)


def at_times(clip: Tensor, times: Tensor) -> Tensor:
    """What belongs to clips (B, T, ...), at times (B, *): (B, *, ...)."""
    sample = torch.arange(len(clip), device=clip.device)
    return clip[sample.view(-1, *[1] * (times.dim() - 1)), times]


def change(clip: Tensor, stride: int = 1) -> Tensor:
    """(B, T - stride) mean absolute difference, in grey levels, of observations (B, T, C, H, W) `stride` apart."""
    clip = clip.float()
    return (clip[:, stride:] - clip[:, :-stride]).abs().mean((2, 3, 4))


def side_by_side(clip: Tensor) -> Tensor:
    """(B, C, H, T * W) pictures of clips (B, T, C, H, W)."""
    return clip.permute(0, 2, 3, 1, 4).flatten(3)


def score(loss: Tensor, hits: Tensor, valid: Tensor, chance: float) -> AuxOutput:
    """Losses (B,) and accuracy, the mean of hits (B,) in [0, 1], over the valid clips (B,) alone.

    Without any, the accuracy is that of chance. `valid` is their share.
    """
    guess = torch.full_like(hits[0], chance)
    accuracy = torch.where(valid.any(), over_valid(hits, valid).mean(), guess)
    return AuxOutput(over_valid(loss, valid), {"accuracy": accuracy, "chance": guess, "valid": valid.float().mean()})
