"""The encoder contract: the only place where pixels become floats."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from encoders.backbones import FixedBatchNorm

CLIP_DEVIATIONS = 10.0  # standard deviations from its mean at most, as in VecNormalize of Stable-Baselines3
MOMENTS_RATE = 1e-3  # weight of a batch in running moments


class TooSmallError(ValueError):
    """An observation has fewer pixels than a kernel of the encoder."""


class Encoder(nn.Module):
    """Maps (B, C, H, W) uint8 pixels to (B, feature_dim) float32 features.

    Args:
        trunk: pixels in [0, 1] to feature maps (B, C', H', W').
        neck: flat maps (B, C' * H' * W') to features.
        obs_shape: (C, H, W) of one stacked observation.
        standardize: the trunk's pixels have mean 0 and standard deviation 1 instead, once `fit_moments` has measured
            them.

    Raises:
        TooSmallError: the observation is smaller than a kernel.
        ValueError: the layers do not fit it, or each other.
    """

    pixel_moments: Tensor | None  # mean and standard deviation
    map_shape: tuple[int, int, int]  # (C', H', W') of `maps`

    def __init__(
        self, trunk: nn.Module, neck: nn.Module, obs_shape: tuple[int, int, int], *, standardize: bool = False
    ) -> None:
        super().__init__()
        self.register_buffer("pixel_moments", torch.tensor([0.0, 1.0]) if standardize else None)
        self.trunk, self.neck = trunk, neck
        self.obs_shape = obs_shape
        try:
            with torch.no_grad():
                maps = self.maps(torch.zeros(1, *obs_shape, dtype=torch.uint8))
                channels, height, width = maps.shape[1:]
                self.map_shape, self.feature_dim = (channels, height, width), self.features(maps).shape[1]
        except RuntimeError as error:
            if "too small" in str(error) or "greater than actual input size" in str(error):
                raise TooSmallError(f"observations of shape {obs_shape} are too small for this encoder") from error
            raise ValueError(f"this encoder fails on observations of shape {obs_shape}: {error}") from error
        # On a CPU, channels-last convolutions run their backward pass in half the time of the default layout.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def maps(self, obs: Tensor) -> Tensor:
        """Feature maps (B, C', H', W') of (B, C, H, W) pixels in [0, 255]; uint8, or floats to take their gradient."""
        return self.trunk(self.normalised(obs))  # type: ignore[no-any-return]

    def normalised(self, obs: Tensor) -> Tensor:
        """What the trunk reads of (B, C, H, W) pixels in [0, 255]: in [0, 1], or standardised."""
        assert obs.shape[1:] == self.obs_shape, f"expected (B, {self.obs_shape}), got {tuple(obs.shape)}"
        # Type and layout in one pass; the copy makes it safe to divide in place.
        pixels = obs.to(torch.float32, memory_format=torch.channels_last, copy=True).div_(255)
        if self.pixel_moments is not None:
            mean, std = self.pixel_moments
            pixels.sub_(mean).div_(std)
        return pixels

    def forward(self, obs: Tensor) -> Tensor:
        """Features (B, feature_dim) of (B, C, H, W) pixels."""
        return self.features(self.maps(obs))

    def features(self, maps: Tensor) -> Tensor:
        """Features (B, feature_dim) of feature maps (B, C', H', W')."""
        return self.neck(maps.flatten(1))  # type: ignore[no-any-return]

    def own_neck(self) -> nn.Module:
        """A neck for maps that begins as this one's and learns by itself, also where the encoder is frozen."""
        return deepcopy(self.neck).requires_grad_(True)


class FrozenEncoder(Encoder):
    """A trained encoder that learns no more, under the same names. It takes features (B, Z, 1, 1) in place of pixels
    and gives them back, so that a replay can store or generate features. Its maps are its features, for every head.
    """

    def __init__(self, encoder: Encoder) -> None:
        nn.Module.__init__(self)
        self.register_buffer("pixel_moments", encoder.pixel_moments)
        self.trunk, self.neck = encoder.trunk, encoder.neck
        self.obs_shape, self.feature_dim = encoder.obs_shape, encoder.feature_dim
        self.map_shape = (self.feature_dim, 1, 1)

    def maps(self, obs: Tensor) -> Tensor:
        """Features (B, Z, 1, 1) of pixels, or those that are given."""
        if obs.shape[1:] == (self.feature_dim, 1, 1):
            return obs
        return super().features(super().maps(obs))[:, :, None, None]

    def features(self, maps: Tensor) -> Tensor:
        """The features (B, Z) that the maps are."""
        return maps.flatten(1)

    def own_neck(self) -> nn.Module:
        """Nothing: the maps are features already."""
        return nn.Sequential()


class StateEncoder(Encoder):
    """Gives the numbers (B, D, 1, 1) of a state as features (B, D), each with mean 0 and standard deviation 1 over
    recent batches: `fit_moments` measures them, and `track` follows. No gradient moves it.
    """

    state_moments: Tensor  # mean and standard deviation of each number

    def __init__(self, obs_shape: tuple[int, int, int]) -> None:
        """Raises ValueError for the shape (C, H, W) of pixels."""
        if obs_shape[1:] != (1, 1):
            raise ValueError(
                f"encoder=state is for states (D, 1, 1), got {obs_shape}: choose another, or observe=state"
            )
        nn.Module.__init__(self)
        self.register_buffer("state_moments", torch.stack([torch.zeros(obs_shape), torch.ones(obs_shape)]))
        self.trunk, self.neck = nn.Identity(), nn.Sequential()
        self.obs_shape, self.map_shape, self.feature_dim = obs_shape, obs_shape, obs_shape[0]
        self.pixel_moments = None

    def maps(self, obs: Tensor) -> Tensor:
        """The standardised numbers (B, D, 1, 1)."""
        return standardize(obs, self.state_moments)


def dead_share(features: Tensor) -> Tensor:
    """Share of the Z dimensions of (B, Z) features that hardly vary: their standard deviation is at most a hundredth of
    the mean one.
    """
    std = features.std(0)
    return (std <= std.mean() / 100).float().mean()


@torch.no_grad()
def fit_moments(module: nn.Module, obs: Tensor) -> None:
    """Measure pixels, states and maps on (B, C, H, W) `obs` for the encoders within a module.

    Statistics of pixels and of batches are measured once, those of states each time.

    As in ActNorm, from the first batch (Kingma & Dhariwal 2018, "Glow"). Before a still background pixels are nearly
    all mean, and an encoder that has to find the rest in its own sums may never do so.
    """
    for encoder in module.modules():
        if isinstance(encoder, StateEncoder):
            encoder.state_moments.copy_(moments(obs))
        elif isinstance(encoder, Encoder) and not isinstance(encoder, FrozenEncoder):
            if encoder.pixel_moments is not None and not encoder.pixel_moments[0]:
                pixels = obs.float() / 255
                encoder.pixel_moments.copy_(torch.stack([pixels.mean(), pixels.std().clamp_min(1 / 255)]))
            measure_norms(encoder, obs)


@torch.no_grad()
def measure_norms(encoder: Encoder, obs: Tensor) -> None:
    """Give the batch normalisations of an encoder that have no statistics those of (B, C, H, W) `obs`."""
    fresh = [norm for norm in encoder.modules() if isinstance(norm, FixedBatchNorm) and not norm.measured]
    if not fresh:
        return
    try:
        for norm in fresh:
            norm.training = True
        encoder(obs)
    finally:
        for norm in fresh:
            norm.training = False


def moments(values: Tensor) -> Tensor:
    """Mean and standard deviation over the batch of each number of (B, ...) values, (2, ...)."""
    var, mean = torch.var_mean(values.float(), dim=0, correction=0)
    return torch.stack([mean, (var + 1e-8).sqrt()])


def standardize(values: Tensor, moments: Tensor) -> Tensor:
    """Numbers (B, ...) by their moments (2, ...), at most 10 standard deviations from the mean."""
    return ((values.float() - moments[0]) / moments[1]).clamp(-CLIP_DEVIATIONS, CLIP_DEVIATIONS)


@torch.no_grad()
def track(tracked: Tensor, values: Tensor) -> None:
    """Move the moments (2, ...) of some numbers a little towards those of a batch (B, ...) of them.

    The first batch alone would mislead: an object that random play hardly touches moves by thousands of the standard
    deviations that were measured then.
    """
    mean, std = moments(values)
    apart = mean - tracked[0]
    variance = tracked[1].square().lerp(std.square(), MOMENTS_RATE) + MOMENTS_RATE * (1 - MOMENTS_RATE) * apart.square()
    tracked.copy_(torch.stack([tracked[0] + MOMENTS_RATE * apart, variance.sqrt()]))
