"""Pixel encoders: uint8 observations to features, and the augmentation applied before them."""

from typing import TYPE_CHECKING

from encoders.config import ENCODERS, EncoderConfig
from harness.lazy import lazily

if TYPE_CHECKING:
    from encoders.base import (
        Encoder,
        FrozenEncoder,
        StateEncoder,
        dead_share,
        fit_moments,
        moments,
        standardize,
        track,
    )
    from encoders.cnn import build_encoder, orthogonal
else:
    __getattr__ = lazily(
        {
            "encoders.base": (
                "Encoder",
                "FrozenEncoder",
                "StateEncoder",
                "dead_share",
                "moments",
                "fit_moments",
                "standardize",
                "track",
            ),
            "encoders.cnn": ("build_encoder", "orthogonal"),
        }
    )

__all__ = [
    "ENCODERS",
    "Encoder",
    "EncoderConfig",
    "FrozenEncoder",
    "StateEncoder",
    "build_encoder",
    "dead_share",
    "fit_moments",
    "moments",
    "orthogonal",
    "standardize",
    "track",
]
