"""Pixel encoders: uint8 observations to features, and the augmentation applied before them."""

from encoders.base import Encoder, dead_share, standardize
from encoders.cnn import ENCODERS, EncoderConfig, build_encoder, orthogonal

__all__ = ["ENCODERS", "Encoder", "EncoderConfig", "build_encoder", "dead_share", "orthogonal", "standardize"]
