"""A cheap encoder and draws of batches for the tests of the tasks on patches."""

import torch
from aux_help import batch_of, generator
from torch import Tensor, nn

from encoders import Encoder

SIZE = 24


def patch_encoder(channels: int = 1, size: int = SIZE, features: int = 32) -> Encoder:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(channels, 16, 6, stride=3), nn.ReLU())
    return Encoder(trunk, nn.Sequential(nn.LazyLinear(features), nn.LayerNorm(features)), (channels, size, size))


def draw_from(images: Tensor, batch: int = 32):
    """Batches of random images for `train_on`, the same for the same step."""
    return lambda step: batch_of(images[torch.randint(len(images), (batch,), generator=generator(step))])
