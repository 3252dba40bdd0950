"""AlexNet and residual networks under torchvision's names, so that weights in its naming can be loaded."""

import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's RGB in [0, 1]
NAMED = re.compile(r"(?:trunk|neck)\.((?:features|classifier|conv1|bn1|layer\d)\..+)")
CLASSES = re.compile(r"(?:fc|classifier\.6)\.(?:weight|bias)")  # what torchvision puts above the features


def torchvision_names(names: Iterable[str]) -> dict[str, str]:
    """The entries of an encoder's state that torchvision's networks have too: its name, and ours."""
    return {match[1]: name for name in names if (match := NAMED.fullmatch(name))}


def alexnet(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """Krizhevsky 2014, "One weird trick for parallelizing convolutional neural networks", up to the 4096 features below
    its classes, without the dropout between them. From 63 x 63 pixels on; it may leave up to 7 rows and columns unread.
    """
    features = nn.Sequential(
        nn.Conv2d(channels, 64, 11, stride=4, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(64, 192, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
        nn.Conv2d(192, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2),
    )
    layers = {"1": nn.Linear(256 * 6 * 6, 4096), "2": nn.ReLU(), "4": nn.Linear(4096, 4096), "5": nn.ReLU()}
    trunk = {"normalize": ImageNetPixels(channels), "features": features, "avgpool": nn.AdaptiveAvgPool2d(6)}
    return nn.Sequential(OrderedDict(trunk)), nn.Sequential(OrderedDict(classifier=nn.Sequential(OrderedDict(layers))))


def resnet18(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The residual network of 18 layers of He et al. 2016, pooled to 512 features; `FixedBatchNorm` normalises it."""
    return _resnet(channels, (3, 3), (2, 2, 2, 2), widening=1)


def resnet50(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The residual network of 50 layers of He et al. 2016, "Deep residual learning for image recognition", pooled to
    2048 features. As in torchvision, the 3 x 3 convolution of a block has its stride. `FixedBatchNorm` normalises it.
    """
    return _resnet(channels, (1, 3, 1), (3, 4, 6, 3), widening=4)


def _resnet(
    channels: int, kernels: Sequence[int], depths: Sequence[int], widening: int
) -> tuple[nn.Sequential, nn.Sequential]:
    """Stages of `depths` blocks, each of convolutions of these kernels, the last of them wider than the others."""
    trunk: dict[str, nn.Module] = {
        "normalize": ImageNetPixels(channels),
        "conv1": nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False),
        "bn1": FixedBatchNorm(64),
        "relu": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, stride=2, padding=1),
    }
    inputs = 64
    for stage, depth in enumerate(depths):
        width, blocks = 64 << stage, list[nn.Module]()
        for block in range(depth):
            widths = [width] * (len(kernels) - 1) + [width * widening]
            blocks.append(_Block(inputs, widths, kernels, stride=2 if stage and not block else 1))
            inputs = widths[-1]
        trunk[f"layer{stage + 1}"] = nn.Sequential(*blocks)
    neck = nn.Sequential(nn.Unflatten(1, (inputs, -1)), nn.AdaptiveAvgPool1d(1), nn.Flatten())
    return nn.Sequential(OrderedDict(trunk)).apply(_kaiming), neck


def _kaiming(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class _Block(nn.Module):
    """relu(x + convolutions(x)), each of them normalised; the first of 3 x 3 has the stride."""

    def __init__(self, inputs: int, widths: Sequence[int], kernels: Sequence[int], stride: int) -> None:
        super().__init__()
        self.depth, outer = len(widths), inputs
        for i, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            own = stride if i == kernels.index(3) else 1
            convolution = nn.Conv2d(outer, width, kernel, stride=own, padding=kernel // 2, bias=False)
            self.add_module(f"conv{i + 1}", convolution)
            self.add_module(f"bn{i + 1}", FixedBatchNorm(width))
            outer = width
        self.downsample = nn.Sequential()
        if stride > 1 or inputs != outer:
            self.downsample.append(nn.Conv2d(inputs, outer, 1, stride=stride, bias=False))
            self.downsample.append(FixedBatchNorm(outer))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H', W')."""
        y = x
        for i in range(1, self.depth + 1):
            y = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(y))
            y = F.relu(y) if i < self.depth else y
        return F.relu(y + self.downsample(x))


class FixedBatchNorm(nn.BatchNorm2d):
    """Batch normalisation (Ioffe, Szegedy 2015) by statistics that never move: those of the weights that were loaded,
    or those of the first batch that is learned from, as in ActNorm (`encoders.fit_moments`).

    Training moves scale and shift alone. So a sample's features depend on no other sample, a loss has no side effect,
    momentum copies have the same statistics, and frozen features are those of torchvision's evaluation mode.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, momentum=1.0)
        self.training = False

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Change nothing."""
        return self

    @property
    def measured(self) -> bool:
        """Whether it has statistics of data."""
        return bool(self.num_batches_tracked)


class ImageNetPixels(nn.Module):
    """Pixels (B, C, H, W) in [0, 1] by ImageNet's mean and standard deviation of each colour; by those of gray unless
    all are RGB.
    """

    moments: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        moments = torch.tensor([MEAN, STD])
        moments = moments.repeat(1, channels // 3) if channels % 3 == 0 else moments.mean(1, keepdim=True)
        self.register_buffer("moments", moments[:, :, None, None], persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """The same shape."""
        return (pixels - self.moments[0]) / self.moments[1]
