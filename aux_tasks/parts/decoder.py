"""Decoders from features to pixels, and their errors."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, error_ratio
from harness.checks import check_least


def decoder(
    feature_dim: int, map_shape: tuple[int, int, int], image_shape: tuple[int, int, int], channels: int
) -> nn.Sequential:
    """Build a decoder of features (B, Z) to images (B, C, H, W).

    It starts from the grid of the encoder's maps, which each layer about doubles.

    Raises:
        ValueError: `channels` is less than 1.
    """
    check_least(1, channels=channels)
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
    return AuxOutput(loss, {"error_ratio": error_ratio(loss, baseline)})


def foreground_error(decoded: Tensor, target: Tensor, share: float, mean: Tensor) -> AuxOutput:
    """Return the squared error (B,) where a `share` of the weights follows the squared deviation from a mean image.

    What covers few pixels then counts as much as what covers many. `error_ratio` is to the error of the best answer
    that is the same for all. It is the weighted mean, not the mean: the weights give away which pixels deviate.

    Args:
        decoded, target: (B, C, H, W).
        share: in [0, 1]; 0 is the plain mean.
        mean: (C, H, W).
    """
    deviation = (target - mean).square()
    weight = 1 - share + share * deviation / deviation.mean((1, 2, 3), keepdim=True).clamp_min(1e-9)
    blind = (weight * target).sum(0) / weight.sum(0).clamp_min(1e-9)
    loss, baseline = (image_error(guess, target, weight).loss for guess in (decoded, blind.expand_as(target)))
    return AuxOutput(loss, {"error_ratio": error_ratio(loss, baseline)})


def _flat(images: Tensor) -> Tensor:
    """Return images (B, C, H, W) as (B, H * W * C): a view in channels-last memory, which sums ten times as fast."""
    return images.permute(0, 2, 3, 1).flatten(1)
