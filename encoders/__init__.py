"""Pixel encoders: uint8 observations to features, and the augmentation applied before them."""

from typing import TYPE_CHECKING

from encoders.config import ENCODERS, EncoderConfig
from harness.lazy import lazily

if TYPE_CHECKING:
    from encoders.base import Encoder, StateEncoder, dead_share, moments, standardize, standardized, track
    from encoders.cnn import build_encoder, orthogonal
else:
    __getattr__ = lazily(
        {
            "encoders.base": (
                "Encoder",
                "StateEncoder",
                "dead_share",
                "moments",
                "standardize",
                "standardized",
                "track",
            ),
            "encoders.cnn": ("build_encoder", "orthogonal"),
        }
    )

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderConfig",
    "StateEncoder",
    "build_encoder",
    "dead_share",
    "moments",
    "orthogonal",
    "standardize",
    "standardized",
    "track",
]
