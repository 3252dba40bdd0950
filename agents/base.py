"""What every agent answers to, and the one weighted sum of its loss terms."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders import Encoder
from replay import Batch


class Auxiliary(Protocol):
    """Side quests as an agent sees them: more terms for its weighted sum, with heads that step themselves."""

    metrics: dict[str, Tensor]

    def weights(self, step: int) -> dict[str, float]:
        """Weight of each term at an agent step."""

    def losses(self, batch: Batch, features: Tensor, encoder: Encoder) -> dict[str, Tensor]:
        """Unreduced loss terms (B,)."""

    def step(self) -> None:
        """Update the heads from their gradients."""

    def aside(self) -> AbstractContextManager[None]:
        """Compute losses without moving the random stream."""


@dataclass(frozen=True)
class Update:
    """What one update leaves, all detached tensors."""

    td_error: Tensor  # (B,) absolute, for priorities; never holds a self-supervised loss
    metrics: dict[str, Tensor]  # scalars by TensorBoard tag, every loss among them


class Agent(nn.Module, ABC):
    """A policy and its learner on a pixel encoder."""

    encoder: Encoder

    @abstractmethod
    def act(self, obs: NDArray[np.uint8], *, step: int, explore: bool) -> NDArray[np.int64]:
        """Choose actions.

        Args:
            obs: (N, C, H, W) stacked observations.
            step: agent step, for the exploration schedule.
            explore: False for the greedy policy.

        Returns:
            (N,) actions.
        """

    @abstractmethod
    def update(self, batch: Batch, *, step: int) -> Update:
        """Learn from one batch at an agent step."""

    @abstractmethod
    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Costly measurements for the log, without learning: gradient cosines, rank of the features."""


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float], sample_weight: Tensor) -> Tensor:
    """Mean over the batch of sum_k weights[k] * terms[k], each sample scaled by its importance weight.

    Args:
        terms: unreduced losses, each (B,).
        weights: one for each term.
        sample_weight: (B,) importance weights of prioritised replay.

    Raises:
        ValueError: names differ, or a term is not (B,).
    """
    if terms.keys() != weights.keys():
        raise ValueError(f"loss terms {sorted(terms)} and weights {sorted(weights)} differ")
    for name, term in terms.items():
        if term.shape != sample_weight.shape:
            raise ValueError(f"loss {name!r} has shape {tuple(term.shape)}, expected {tuple(sample_weight.shape)}")
    total = torch.zeros_like(sample_weight)
    for name, term in terms.items():
        total = total + weights[name] * term
    return (sample_weight * total).mean()


def check_ownership(module: nn.Module, optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Raise ValueError unless every trainable parameter of `module` is in exactly one optimiser."""
    owners: dict[int, int] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    for name, parameter in module.named_parameters():
        if parameter.requires_grad and owners.get(id(parameter), 0) != 1:
            raise ValueError(f"parameter {name} is in {owners.get(id(parameter), 0)} optimisers, expected 1")


def effective_rank(features: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli 2007) of (B, Z) features.

    Between 1 (collapsed) and min(B - 1, Z).
    """
    singular = torch.linalg.svdvals(features - features.mean(0))
    share = singular / singular.sum().clamp_min(1e-12)
    return torch.exp(torch.special.entr(share).sum())


def gradient_cosines(terms: Mapping[str, Tensor], reference: str, encoder: Encoder) -> dict[str, Tensor]:
    """Cosine between the encoder gradient of each term and that of `reference`: negative means they fight."""
    parameters = list(encoder.parameters())

    def gradient(term: Tensor) -> Tensor:
        gradients = torch.autograd.grad(
            term.mean(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return torch.cat([g.flatten() for g in gradients])

    anchor = gradient(terms[reference])
    return {
        name: torch.cosine_similarity(gradient(term), anchor, dim=0)
        for name, term in terms.items()
        if name != reference
    }
