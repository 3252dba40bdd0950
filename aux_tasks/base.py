"""The contract of every self-supervised objective."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from encoders import Encoder
from replay import Batch


@dataclass(frozen=True)
class AuxOutput:
    """An unreduced loss (B,) and detached scalars to log."""

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """A few inputs as the task's head sees them, with its answers, for people to look at."""

    inputs: Tensor  # (K, C, H, W) uint8
    predicted: list[str]
    correct: list[str]


class AuxTask(nn.Module, ABC):
    """A loss on a batch of pixels through an encoder that is passed in, never stored.

    A task owns only its head's parameters. Random choices come from `generator`, which belongs to the run's
    auxiliary stream, so that adding a task changes no other random number.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs"})  # Batch fields it needs

    generator: torch.Generator

    @abstractmethod
    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Loss per sample.

        Args:
            batch: the replay batch of B samples.
            features: (B, Z) `encoder(batch.obs)`, with its graph, for tasks on unchanged observations.
            encoder: the shared encoder, for tasks that change the pixels first.
        """

    @abstractmethod
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """What the head sees and answers on `batch`."""
