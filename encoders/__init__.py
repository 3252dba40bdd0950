"""Pixel encoders: uint8 observations to features, and the augmentation applied before them."""

from typing import TYPE_CHECKING

from encoders.config import ENCODERS, EncoderConfig
from harness.lazy import lazily

if TYPE_CHECKING:
    from encoders.base import Encoder, dead_share, standardize
    from encoders.cnn import build_encoder, orthogonal
else:
    __getattr__ = lazily(
        {"encoders.base": ("Encoder", "dead_share", "standardize"), "encoders.cnn": ("build_encoder", "orthogonal")}
    )

__all__ = ["ENCODERS", "Encoder", "EncoderConfig", "build_encoder", "dead_share", "orthogonal", "standardize"]
