"""Patches of a video: found by their motion, followed from frame to frame."""

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.parts.patches import corner_of, crop


def most_moving(frames: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Return the patch of the first frame that differs most from the other frames (B, T, H, W).

    Returns its top left corner (B, 2) and the difference (B,).

    Where a thing was at first nearly all later frames differ, where it comes later only that one does. Two box filters
    put the thing into the middle of the patch.
    """
    half = (patch_size + 1) // 2
    difference = (frames[:, 1:] - frames[:, :1]).abs().mean(1, keepdim=True)
    score = F.avg_pool2d(F.avg_pool2d(difference, half, 1), patch_size + 1 - half, 1)[:, 0]
    best, index = score.flatten(1).max(1)
    return corner_of(index, score.shape[2]), best


def centre_patch(images: Tensor, corner: Tensor, patch_size: int) -> Tensor:
    """Return the corner (B, 2) of the patch around what stands out in that at `corner` (B, 2) of images (B, H, W).

    That is the centroid of the differences from the patch's median, its ground; looked for twice, since a part may lie
    outside at first.
    """
    middle = torch.arange(patch_size, device=images.device) - (patch_size - 1) / 2
    for _ in range(2):
        pixels = crop(images[:, None], corner, (patch_size, patch_size))[:, 0]
        weight = (pixels - pixels.flatten(1).median(1).values[:, None, None]).abs()
        moment = torch.stack([(weight.sum(2) * middle).sum(1), (weight.sum(1) * middle).sum(1)], dim=1)
        offset = moment / weight.sum((1, 2)).clamp_min(1e-6)[:, None]
        moved = (corner + offset.round().long()).unbind(1)
        most = (side - patch_size for side in images.shape[1:])
        corner = torch.stack([at.clamp(0, last) for at, last in zip(moved, most, strict=True)], dim=1)
    return corner


def follow_patch(before: Tensor, after: Tensor, corner: Tensor, patch_size: int, reach: int) -> tuple[Tensor, Tensor]:
    """Return where the patch at `corner` (B, 2) of `before` (B, H, W) is in `after`, and how alike both are (B,).

    It is looked for at most `reach` pixels away.

    That is 2 cov(x, y) / (var(x) + var(y)) in [-1, 1], 0 for flat patches: correlation times the likeness of contrasts
    (Wang et al. 2004, "Image quality assessment", equations 9 and 10). Correlation alone takes a dark thing for a
    bright one of the same shape.
    """
    sides = after.shape[1:]
    height, width = (min(patch_size + 2 * reach, side) for side in sides)
    window_corner = torch.stack(
        [(corner[:, 0] - reach).clamp(0, sides[0] - height), (corner[:, 1] - reach).clamp(0, sides[1] - width)], dim=1
    )
    template = crop(before[:, None], corner, (patch_size, patch_size))
    template = template - template.mean((2, 3), keepdim=True)
    window = crop(after[:, None], window_corner, (height, width))
    window = window - window.mean((2, 3), keepdim=True)  # for the sake of precision
    overlap = F.conv2d(window.transpose(0, 1), template, groups=len(window))[0]  # (B, height - patch_size + 1, ...)
    mean, square = (F.avg_pool2d(image, patch_size, 1)[:, 0] for image in (window, window.square()))
    power = (square - mean.square()) * patch_size**2 + template.square().sum((1, 2, 3))[:, None, None]
    best, found = (2 * overlap / power.clamp_min(1e-3)).flatten(1).max(1)
    return window_corner + corner_of(found, overlap.shape[2]), best
