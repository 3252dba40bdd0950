"""The encoder contract: the only place where pixels become floats."""

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Maps (B, C, H, W) uint8 pixels to (B, feature_dim) float32 features.

    Args:
        trunk: pixels in [0, 1] to feature maps (B, C', H', W').
        neck: flat maps (B, C' * H' * W') to features.
        obs_shape: (C, H, W) of one stacked observation.

    Raises:
        ValueError: the observation is too small for the trunk.
    """

    def __init__(self, trunk: nn.Module, neck: nn.Module, obs_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, neck
        self.obs_shape = obs_shape
        try:
            with torch.no_grad():
                self.feature_dim = int(self(torch.zeros(1, *obs_shape, dtype=torch.uint8)).shape[1])
        except RuntimeError as error:
            raise ValueError(f"observations of shape {obs_shape} are too small for this encoder: {error}") from error
        # On a CPU, channels-last convolutions run their backward pass in half the time of the default layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, obs: Tensor) -> Tensor:
        """Feature maps (B, C', H', W') of (B, C, H, W) pixels in [0, 255]; uint8, or floats to take their gradient."""
        assert obs.shape[1:] == self.obs_shape, f"expected (B, {self.obs_shape}), got {tuple(obs.shape)}"
        # Type and layout in one pass; the copy makes it safe to divide in place.
        pixels = obs.to(torch.float32, memory_format=torch.channels_last, copy=True).div_(255)
        return self.trunk(pixels)  # type: ignore[no-any-return]

    def forward(self, obs: Tensor) -> Tensor:
        """Features (B, feature_dim) of (B, C, H, W) pixels."""
        return self.features(self.maps(obs))

    def features(self, maps: Tensor) -> Tensor:
        """Features (B, feature_dim) of feature maps (B, C', H', W')."""
        return self.neck(maps.flatten(1))  # type: ignore[no-any-return]
