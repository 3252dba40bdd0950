"""Pixels, generators and encoders for tests."""

import torch

from encoders import Encoder, EncoderConfig, build_encoder


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pixels(*shape: int) -> torch.Tensor:
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(7))


def make(name: str, shape: tuple[int, int, int] = (4, 84, 84), seed: int = 0, **config: object) -> Encoder:
    torch.manual_seed(seed)
    return build_encoder(EncoderConfig(name=name, **config), shape)
