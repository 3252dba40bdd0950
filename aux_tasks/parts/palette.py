"""A small palette for the colours of a batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

LLOYD_STEPS = 4


def kmeans(points: Tensor, weight: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the nearest of `count` centres (N,) of points (N, D), and the centres (count, D).

    They start at points that are far apart.

    Points of weight (N,) 0 have no say. With fewer different points than centres, some centres are alike, and the first
    of them is the nearest.
    """
    mean = (points * weight[:, None]).sum(0) / weight.sum().clamp_min(1)
    gap = (points - mean).square().sum(1)
    centres = []
    for _ in range(count):
        centres.append(points[(gap * weight).argmax(0, keepdim=True)])
        gap = gap.minimum((points - centres[-1]).square().sum(1))
    centre = torch.cat(centres)
    for _ in range(LLOYD_STEPS):
        mine = F.one_hot(torch.cdist(points, centre).argmin(1), count) * weight[:, None]
        size = mine.sum(0)[:, None]
        centre = torch.where(size > 0, mine.T @ points / size.clamp_min(1), centre)
    return torch.cdist(points, centre).argmin(1), centre
