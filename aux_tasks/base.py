"""The contract of every auxiliary task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders import Encoder
from replay import Batch


@dataclass(frozen=True)
class AuxOutput:
    """An unreduced loss (B,) and detached scalars to log.

    The metrics `accuracy` and `chance`, that of a blind guess, tell how well the task is solved; where there are no
    classes, `error_ratio` does: the error over that of the trivial answer, 1 for nothing learned.
    """

    loss: Tensor
    metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Examples:
    """A few samples for people to look at: what the head is asked, what it sees or makes, and its answers.

    Pictures of one sample stand side by side, each below its name; the answers stand beside them.
    """

    question: str  # one or two sentences, for somebody who does not know the task
    pictures: Mapping[str, Tensor]  # by name: (K, C, H, W) uint8 of K samples
    predicted: list[str] | None = None  # K answers; None: the pictures are the answers
    correct: list[str] | None = None
    frames: int | None = None  # in each picture, if not those of an observation


@dataclass(frozen=True)
class TaskSetting:
    """What a task may know about its run."""

    encoder: Encoder  # read for its shapes or copied, never stored
    frame_stack: int
    num_actions: int | None  # None: continuous actions
    action_dim: int  # A, the width of the action vector that a model reads: one-hot, or the continuous action
    gamma: float  # discount of one agent step
    generator: torch.Generator  # the auxiliary stream, on the run's device

    @property
    def obs_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one stacked observation."""
        return self.encoder.obs_shape

    @property
    def feature_dim(self) -> int:
        """Z of the encoder."""
        return self.encoder.feature_dim

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(C', H', W') of `encoder.maps`."""
        return self.encoder.map_shape


class AuxTask(nn.Module, ABC):
    """A loss on a batch of pixels through an encoder that is passed in, never stored.

    A task owns its head's parameters alone; a momentum copy of the encoder requires no gradient. Random choices come
    from `generator`, which belongs to the run's auxiliary stream, so that adding a task changes no other random number.
    `loss` and `examples` change nothing but the state of that generator; whatever else moves does so in `after_step`.
    No method but `examples` reads a value from the device, so that an update can be captured as a graph.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs"})  # Batch fields it needs; "features": those of `batch.obs`

    default_weight: ClassVar[float] = 1.0  # of its loss beside the agent's
    clip_length: int = 0  # observations in the clips it needs, if it does
    weight_decay: float = 0.0  # of the head, in its optimiser
    adversary: nn.Module | None  # a critic with an optimiser of its own, trained by `adversary_loss`

    def __init__(self, setting: TaskSetting) -> None:
        super().__init__()
        self.generator = setting.generator
        self.adversary = None  # not on the class, where it would hide a submodule of that name

    @abstractmethod
    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return the loss per sample.

        Args:
            batch: the replay batch of B samples.
            features: (B, Z) the encoder's of `batch.obs`, as the agent shifts it if it does, with its graph, for tasks
                that read them.
            encoder: the shared encoder, for tasks that change the pixels first.
        """

    def adversary_loss(self, batch: Batch, encoder: Encoder) -> Tensor:
        """Return the scalar loss of `adversary`, and of it alone; called after encoder and heads have moved."""
        raise NotImplementedError(f"{type(self).__name__} has an adversary, but no loss for it")

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Update state that no optimiser updates: queues, momentum copies.

        No other method but `BonusTask.count` changes a task.

        Args:
            batch: the batch of the update.
            encoder: the shared encoder, which has moved, as the head has.
        """
        return None

    def examples(self, batch: Batch, encoder: Encoder) -> Examples | None:  # noqa: ARG002
        """Return what the head sees and answers on `batch`, or None where that cannot be shown."""
        return None


class BonusTask(AuxTask):
    """A task that also tells how new a transition is, for an agent that explores: see `TaskConfig.bonus_weight`.

    Attributes:
        offers_bonus: whether the task gives a bonus with its options.
    """

    offers_bonus = True

    @abstractmethod
    def bonus(self, batch: Batch, features: Tensor, encoder: Encoder) -> Tensor:
        """Return the bonus (B,) of one step, at least 0, in any unit; the arguments are those of `loss`.

        It is called without gradient, before encoder and heads move, and changes nothing.
        """

    def count(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Update what only the bonus reads, after each update of a run that uses it; see `after_step`."""
        return None


def classify(logits: Tensor, label: Tensor) -> AuxOutput:
    """Return the cross-entropy (B,) of (B, K) logits with (B,) labels, the accuracy, and chance 1 / K.

    With labels 0 to B - 1 it is InfoNCE: row i has to find its own among the others' columns.
    """
    logits = logits.float()
    accuracy = (logits.detach().argmax(1) == label).float().mean()
    chance = torch.full_like(accuracy, 1 / logits.shape[1])
    return AuxOutput(F.cross_entropy(logits, label, reduction="none"), {"accuracy": accuracy, "chance": chance})


def error_ratio(loss: Tensor, baseline: Tensor) -> Tensor:
    """Return the mean of a loss over that of the trivial answer, without a gradient."""
    return loss.detach().mean() / baseline.mean().clamp_min(1e-12)


def over_valid(loss: Tensor, valid: Tensor) -> Tensor:
    """Return (B,) losses, 0 where not `valid` (B,), scaled so that their mean is the mean of the valid ones."""
    return loss * valid * (len(valid) / valid.sum().clamp_min(1))
