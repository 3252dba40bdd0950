"""The convolutional encoders of the field."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.backbones import ImageNetPixels
from encoders.base import Encoder, StateEncoder, TooSmallError
from encoders.config import ENCODERS, EncoderConfig
from harness.suggest import nearest


def build_encoder(config: EncoderConfig, obs_shape: tuple[int, int, int]) -> Encoder:
    """Build the encoder `config.name` for observations of shape (C, H, W).

    Raises:
        ValueError: the name is unknown, the observation is too small or of the wrong kind, or a key does not apply.
    """
    if config.name not in ENCODERS:
        raise ValueError(f"unknown encoder {config.name!r}: {nearest(config.name, ENCODERS)}")
    if config.name == "state":
        if given := [key for key in ("feature_dim", "unit_norm", "standardize") if getattr(config, key)]:
            raise ValueError(f"encoder.{given[0]} does not apply to encoder=state: leave it out")
        return StateEncoder(obs_shape)
    if obs_shape[1:] == (1, 1):
        raise ValueError(f"encoder={config.name} reads pixels, but these are states: encoder=state")
    trunk, neck = ENCODERS[config.name](obs_shape[0])
    if config.standardize and isinstance(trunk[0], ImageNetPixels):
        raise ValueError(f"encoder.standardize=true: encoder={config.name} scales pixels by ImageNet's moments already")
    try:
        encoder = Encoder(trunk, neck, obs_shape, standardize=config.standardize)
    except TooSmallError as error:
        pixels = [name for name in ENCODERS if name != "state"]
        fit = sorted((name for name in pixels if _fits(name, obs_shape)), key=lambda name: name != "small")
        advice = f"encoder={fit[0]} fits, of {', '.join(fit)}" if fit else "no encoder fits"
        raise ValueError(f"observations {obs_shape} are too small for encoder={config.name}: {advice}") from error
    if config.feature_dim:
        neck.append(nn.Linear(encoder.feature_dim, config.feature_dim).apply(orthogonal))
        encoder.feature_dim = config.feature_dim
    if config.layer_norm:
        neck.append(nn.LayerNorm(encoder.feature_dim))
    if config.unit_norm:
        neck.append(_Unit())
    return encoder


def _fits(name: str, obs_shape: tuple[int, int, int]) -> bool:
    try:
        Encoder(*ENCODERS[name](obs_shape[0]), obs_shape)
    except ValueError:
        return False
    return True


def nature(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Three convolutions of Mnih et al. 2015, "Human-level control through deep reinforcement learning"."""
    trunk = nn.Sequential(
        nn.Conv2d(channels, 32, 8, stride=4),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=1),
        nn.ReLU(),
    )
    return trunk, nn.Sequential()


def nips(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Two convolutions of Mnih et al. 2013, "Playing Atari with deep reinforcement learning": a finer grid than `der`
    at a third of Nature's arithmetic.
    """
    trunk = nn.Sequential(
        nn.Conv2d(channels, 16, 8, stride=4),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, stride=2),
        nn.ReLU(),
    )
    return trunk, nn.Sequential()


def der(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Two patch convolutions of van Hasselt et al. 2019, data-efficient Rainbow: a seventh of Nature's arithmetic.

    Padded, unlike the original: at 84x84 its unpadded strides never read the last 9 rows and columns, and with them
    Breakout's paddle and half of Pong's.
    """
    trunk = nn.Sequential(
        nn.Conv2d(channels, 32, 5, stride=5, padding=3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 5, stride=5, padding=1),
        nn.ReLU(),
    )
    return trunk, nn.Sequential()


def study(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Three convolutions and three fully connected layers, all shared by the heads (Agarwal, Sinha, Ayush)."""
    trunk, _ = nature(channels)
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.LazyLinear(512), nn.ReLU()]
    return trunk, nn.Sequential(*layers)


def study_digits(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Two convolutions, pooled, and one fully connected layer: what the study classified MNIST with."""
    trunk = nn.Sequential(
        nn.Conv2d(channels, 32, 3),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    return trunk, nn.Sequential(nn.LazyLinear(128), nn.ReLU())


def impala(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The residual network of Espeholt et al. 2018, IMPALA, with 16, 32 and 32 channels."""
    return _residual(channels, (16, 32, 32), blocks=2), nn.Sequential(nn.LazyLinear(256), nn.ReLU())


def impala_small(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """A smaller IMPALA, with 8, 16 and 16 channels and one block for each. Its maps have the size of `impala`'s."""
    return _residual(channels, (8, 16, 16), blocks=1), nn.Sequential(nn.LazyLinear(256), nn.ReLU())


def _residual(channels: int, widths: Sequence[int], blocks: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for width in widths:
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.MaxPool2d(3, stride=2, padding=1)]
        layers += [_Residual(width) for _ in range(blocks)]
        channels = width
    return nn.Sequential(*layers, nn.ReLU())


def control(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Four convolutions of Yarats et al. 2019, SAC-AE. CURL, DBC and DrQ use them too, with `feature_dim: 50`.

    Unpadded: at 84x84 the last row and column are never read. The convolutions start delta-orthogonal, as in SAC-AE,
    CURL and DBC; DrQ's released code starts them orthogonal. After the layer norm, SAC-AE and DrQ apply a tanh, which
    this encoder does not have; CURL and DBC have none.
    """
    layers: list[nn.Module] = []
    for stride in (2, 1, 1, 1):
        layers += [nn.Conv2d(channels, 32, 3, stride=stride), nn.ReLU()]
        channels = 32
    return nn.Sequential(*layers).apply(delta_orthogonal), nn.Sequential()


def control_fast(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Three convolutions for a CPU, every pixel read: forward and backward cost a seventh of those of `control`.

    Measured at 64 x 9 x 84 x 84 with a linear layer of 50, one core: 40 ms against 290 ms.
    """
    trunk = nn.Sequential(
        nn.Conv2d(channels, 32, 6, stride=4, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.ReLU(),
    )
    return trunk.apply(orthogonal), nn.Sequential()


def state(channels: int) -> tuple[nn.Sequential, nn.Sequential]:  # noqa: ARG001
    """The numbers of a state themselves: see `StateEncoder`."""
    return nn.Sequential(), nn.Sequential()


def small(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Three convolutions for images of 28 to 64 pixels, pooled to 4 x 4, and 128 features.

    Borders repeat the image, so that a feature cannot tell where it is from zeros beside it.
    """
    trunk = nn.Sequential(
        nn.Conv2d(channels, 32, 4, stride=2, padding=1, padding_mode="replicate"),
        nn.GroupNorm(4, 32),
        nn.ReLU(),
        nn.Conv2d(32, 64, 4, stride=2, padding=1, padding_mode="replicate"),
        nn.GroupNorm(8, 64),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1, padding_mode="replicate"),
        nn.GroupNorm(8, 64),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
    )
    return trunk, nn.Sequential(nn.Linear(1024, 128))


def keypoints(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Where each of 32 filters responds, as 64 coordinates: a spatial softmax (Finn et al. 2016, "Deep spatial
    autoencoders for visuomotor learning", with two convolutions in place of three). Features are linear in the
    positions of what moves. The coordinates vary little at first, so this needs `layer_norm`, the default.
    """
    trunk = nn.Sequential(
        nn.Conv2d(channels, 32, 6, stride=4, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        SpatialSoftmax(),
    )
    return trunk, nn.Sequential(nn.Unflatten(1, (64, -1)), _Sum())


def orthogonal(module: nn.Module) -> None:
    """For `Module.apply`: orthogonal weights, of convolutions over whole patches with the gain of ReLU; biases 0."""
    if isinstance(module, nn.Linear | nn.Conv2d):
        nn.init.orthogonal_(module.weight, math.sqrt(2) if isinstance(module, nn.Conv2d) else 1)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def delta_orthogonal(module: nn.Module) -> None:
    """For `Module.apply`: convolutions orthogonal in their centre tap, 0 in the others (Xiao et al. 2018)."""
    if isinstance(module, nn.Conv2d):
        orthogonal(module)
        centre = module.weight.data[:, :, module.kernel_size[0] // 2, module.kernel_size[1] // 2]
        nn.init.zeros_(module.weight)
        nn.init.orthogonal_(centre, math.sqrt(2))


class _Residual(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(F.relu(x))))  # type: ignore[no-any-return]


class SpatialSoftmax(nn.Module):
    """Softmax over space of each map (B, C, H, W), times x and y in [-1, 1]: (B, 2C, H, W), which sum to positions."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, 2C, H, W)."""
        height, width = x.shape[2:]
        share = x.flatten(2).softmax(2).view(x.shape)
        across = torch.linspace(-1, 1, width, device=x.device)
        down = torch.linspace(-1, 1, height, device=x.device)[:, None]
        return torch.cat([share * across, share * down], dim=1).contiguous(memory_format=torch.channels_last)


class _Unit(nn.Module):
    """Features (B, Z) scaled to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x)


class _Sum(nn.Module):
    """The sum over the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(-1)
