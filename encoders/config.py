"""Which encoder a run has, and every encoder by name. Nothing here needs torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.checks import check_least
from harness.lazy import Registry

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class EncoderConfig:
    """Which encoder, and what follows it."""

    name: str = "der"
    feature_dim: int | None = None  # width of a last linear layer; null: no such layer
    layer_norm: bool = True  # layer normalisation of the features; steadier Q-learning at high learning rates
    unit_norm: bool = False  # features of length 1, after that normalisation, as SimSR's agents read them
    standardize: bool = False  # scale pixels by mean and standard deviation of the first batch that is learned from
    # start from these weights: the folder of a run or of zoo/, an encoder.safetensors, or for alexnet and resnet a file
    # with torchvision's names, .pth or .safetensors
    init: str | None = None

    def __post_init__(self) -> None:
        check_least(1, "encoder", feature_dim=self.feature_dim)


ENCODERS: "Registry[Callable[[int], tuple[nn.Sequential, nn.Sequential]]]" = Registry(
    {
        "nature": "encoders.cnn:nature",
        "nips": "encoders.cnn:nips",
        "der": "encoders.cnn:der",
        "study": "encoders.cnn:study",
        "impala": "encoders.cnn:impala",
        "impala_small": "encoders.cnn:impala_small",
        "control": "encoders.cnn:control",
        "control_fast": "encoders.cnn:control_fast",
        "small": "encoders.cnn:small",
        "keypoints": "encoders.cnn:keypoints",
        "study_digits": "encoders.cnn:study_digits",
        "vit": "encoders.vit:vit",
        "alexnet": "encoders.backbones:alexnet",
        "resnet18": "encoders.backbones:resnet18",
        "resnet50": "encoders.backbones:resnet50",
        "state": "encoders.cnn:state",
    }
)
