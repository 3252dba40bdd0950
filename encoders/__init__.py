"""Pixel encoders: uint8 observations to features, and the augmentation applied before them."""

from encoders.base import Encoder, standardize
from encoders.cnn import ENCODERS, EncoderConfig, build_encoder, orthogonal

__all__ = ["ENCODERS", "Encoder", "EncoderConfig", "build_encoder", "orthogonal", "standardize"]
