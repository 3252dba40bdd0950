"""Decoders from features to pixels, and their errors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput


def decoder(
    feature_dim: int, map_shape: tuple[int, int, int], image_shape: tuple[int, int, int], channels: int
) -> nn.Sequential:
    """Build a decoder of features (B, Z) to images (B, C, H, W).

    It starts from the grid of the encoder's maps, which each layer about doubles.
    """
    grid, size = map_shape[1:], image_shape[1:]
    doublings = max(1, round(math.log2(size[0] / grid[0])))
    layers: list[nn.Module] = [
        nn.Linear(feature_dim, channels * grid[0] * grid[1]),
        nn.ReLU(),
        nn.Unflatten(1, (channels, *grid)),
    ]
    for layer in range(1, doublings + 1):
        height, width = (round(g * (s / g) ** (layer / doublings)) for g, s in zip(grid, size, strict=True))
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.Upsample((height, width))]
    layers.append(nn.Conv2d(channels, image_shape[0], 3, padding=1))
    # The layout of the targets: arithmetic on two layouts takes many times as long.
    return nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def centred(obs: Tensor) -> Tensor:
    """Return uint8 pixels as a decoder's targets, in (-0.5, 0.5)."""
    return (obs.float() + 0.5) / 256 - 0.5


def to_pixels(decoded: Tensor) -> Tensor:
    """Return a decoder's output as uint8 pixels."""
    return ((decoded.float() + 0.5) * 256).clamp(0, 255).to(torch.uint8)


def image_error(decoded: Tensor, target: Tensor, weight: Tensor | None = None) -> AuxOutput:
    """Return the mean squared error (B,) of images (B, C, H, W), and its ratio to the error of the batch's mean image.

    Args:
        decoded: the images predicted.
        target: the right ones.
        weight: of each pixel, 1 without it; anything that broadcasts to the images.
    """
    if weight is not None:
        weight = _flat(weight.expand_as(target))
        weight = weight / weight.sum(1, keepdim=True).clamp_min(1e-6)
    decoded, target = _flat(decoded.float()), _flat(target)

    def error(guess: Tensor) -> Tensor:
        squared = F.mse_loss(guess, target, reduction="none")
        return squared.mean(1) if weight is None else (squared * weight).sum(1)

    loss, baseline = error(decoded), error(target.mean(0).expand_as(target))
    return AuxOutput(loss, {"error_ratio": loss.detach().mean() / baseline.mean().clamp_min(1e-12)})


def foreground_weight(target: Tensor, share: float) -> Tensor:
    """Return weights (B, C, H, W) of pixels, 1 on average: a `share` of them follows the squared deviation from the
    batch's mean image, the rest is uniform. What covers few pixels then counts as much as what covers many.
    """
    deviation = (target - target.mean(0)).square()
    relative = deviation / deviation.mean((1, 2, 3), keepdim=True).clamp_min(1e-9)
    return 1 - share + share * relative


def _flat(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) as (B, H * W * C): a view in channels-last memory, which sums ten times as fast."""
    return images.permute(0, 2, 3, 1).flatten(1)
