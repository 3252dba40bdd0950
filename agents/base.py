"""What every agent answers to, and the one weighted sum of its loss terms."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from encoders import Encoder, dead_share
from encoders.augment import random_shift
from replay import Batch


class Auxiliary(Protocol):
    """Side quests as an agent sees them: more terms for its weighted sum, with heads that step themselves."""

    def weights(self, step: int) -> dict[str, float]:
        """Weight of each term at an agent step."""

    def losses(self, batch: Batch, features: Tensor, encoder: Encoder) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Unreduced loss terms (B,), and scalars to log."""

    def after_step(self, batch: Batch, encoder: Encoder) -> None:
        """Update the heads from their gradients, after the encoder was."""

    def aside(self) -> AbstractContextManager[None]:
        """Compute losses without moving the random stream."""


@dataclass(frozen=True)
class Update:
    """What one update leaves, all detached tensors."""

    td_error: Tensor  # (B,) absolute, for priorities; never holds a self-supervised loss
    metrics: dict[str, Tensor]  # scalars by TensorBoard tag, every loss among them


class Precision(StrEnum):
    """Type of the networks' products in an update; weights and losses are float32."""

    float32 = "float32"
    bfloat16 = "bfloat16"


@dataclass(frozen=True)
class AgentConfig:
    """Hyperparameters of every agent."""

    learning_rate: float = 1e-3
    encoder_scale: float = 1.0  # of the encoder's learning rate; 0 keeps the encoder as it is
    adam_eps: float = 1e-8
    max_grad_norm: float = math.inf  # of the step that moves the encoder
    random_shift: int = 0  # pixels of shift augmentation, 0 for none
    precision: Precision = Precision.float32
    compile: bool = False  # torch.compile for the networks; on a CPU it needs a C++ compiler

    def __post_init__(self) -> None:
        self._check("at least 0", lambda x: x >= 0, "encoder_scale", "adam_eps", "random_shift")
        self._check("above 0", lambda x: x > 0, "learning_rate", "max_grad_norm")

    def _check(self, rule: str, holds: Callable[[float], bool], *names: str) -> None:
        """Raise ValueError unless the values of these keys, as far as they are given, obey a rule; NaN obeys none."""
        for name in names:
            if (value := getattr(self, name)) is not None and not holds(value):
                raise ValueError(f"agent.{name}={value}: must be {rule}")


class Agent(nn.Module, ABC):
    """A policy and its learner on a pixel encoder.

    Args:
        config: hyperparameters.
        encoder: the shared encoder, trained by the agent's TD loss and by the side quests.
        auxiliary: the side quests of the run.
        explore_rng: stream of the exploratory actions.
        augment_generator: stream of the augmentation, on the run's device.
    """

    optimizers: list[torch.optim.Optimizer]  # the first one steps the encoder; the side quests keep their own

    def __init__(
        self,
        config: AgentConfig,
        encoder: Encoder,
        auxiliary: Auxiliary,
        *,
        explore_rng: np.random.Generator,
        augment_generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config, self.encoder, self.auxiliary = config, encoder, auxiliary
        if not config.encoder_scale:
            encoder.requires_grad_(False)
        self.explore_rng, self.augment_generator = explore_rng, augment_generator
        self.updates = 0

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.augment_generator.device

    def groups(self, head: nn.Module) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser that moves encoder and `head`, each with the scale of its learning rate."""
        scales = {self.encoder: self.config.encoder_scale, head: 1.0}
        return [
            {"params": list(module.parameters()), "lr": self.config.learning_rate * scale, "scale": scale}
            for module, scale in scales.items()
            if scale
        ]

    @abstractmethod
    def act(self, obs: NDArray[np.uint8], *, step: int, explore: bool) -> NDArray[Any]:
        """Choose actions.

        Args:
            obs: (N, C, H, W) stacked observations.
            step: agent step, for the exploration schedule.
            explore: False for the policy that is judged.

        Returns:
            (N,) int64, or (N, A) float32 in [-1, 1].
        """

    @abstractmethod
    def update(self, batch: Batch, *, step: int) -> Update:
        """Learn from one batch at an agent step."""

    @abstractmethod
    def td_loss(self, features: Tensor, batch: Batch, next_obs: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The loss that trains the encoder.

        Args:
            features: (B, Z) of the observations, with their graph.
            batch: the transitions.
            next_obs: (B, C, H, W) the observations after them, augmented or not.

        Returns:
            (B,) unreduced loss, (B,) detached absolute TD error, and detached scalars to log.
        """

    @abstractmethod
    def q_values(self, obs: Tensor) -> Tensor:
        """Values (B, K) of what the agent may do at pixels (B, C, H, W), for attribution."""

    def schedules(self, step: int) -> dict[str, float]:  # noqa: ARG002
        """Scalars to log that follow from the agent step alone."""
        return {}

    def augment(self, obs: Tensor, copies: int = 1) -> Tensor:
        """Shift the pixels if the run asks for it, so many copies of each."""
        if not self.config.random_shift:
            return obs
        return random_shift(obs, self.config.random_shift, self.augment_generator, copies)

    def autocast(self) -> torch.autocast:
        """The configured precision, for the forward passes of an update."""
        enabled = self.config.precision is Precision.bfloat16
        return torch.autocast(self.device.type, torch.bfloat16, enabled=enabled)

    def descend(self, terms: dict[str, Tensor], weights: dict[str, float], sample_weight: Tensor) -> Tensor:
        """One step of the encoder's optimiser; the heads of the side quests keep their gradients for their own.

        Returns:
            The norm of the gradient of that optimiser's parameters, before clipping.
        """
        weighted_sum(terms, weights, sample_weight).backward()  # type: ignore[no-untyped-call]
        optimizer = self.optimizers[0]
        moved = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(moved, self.config.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        return norm

    def diagnose(self, batch: Batch) -> dict[str, Tensor]:
        """Costly measurements for the log, without learning.

        Returns:
            `aux/<task>/grad_cosine` with the gradient of the TD loss on the encoder, and `representation`: scalars, and
            vectors whose histogram is of interest.
        """
        with self.auxiliary.aside():
            features = self.encoder(batch.obs)
            terms = {"td": self.td_loss(features, batch, batch.nstep_obs)[0]}
            terms |= self.auxiliary.losses(batch, features, self.encoder)[0]
            cosines = gradient_cosines(terms, "td", self.encoder)
        metrics = {f"aux/{name}/grad_cosine": cosine for name, cosine in cosines.items()}
        return metrics | representation(features.detach())


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


def representation(features: Tensor) -> dict[str, Tensor]:
    """Of (B, Z) features `repr/effective_rank`, `repr/feature_stds`, the standard deviation over the batch of each
    dimension (Z,), `repr/feature_std`, their mean, and `repr/dead_share`, of the dimensions that hardly have one.
    """
    stds = features.std(0)
    return {
        "repr/effective_rank": effective_rank(features),
        "repr/feature_stds": stds,
        "repr/feature_std": stds.mean(),
        "repr/dead_share": dead_share(features),
    }


def effective_rank(features: Tensor) -> Tensor:
    """Exponential of the entropy of the normalised singular values (Roy and Vetterli 2007) of (B, Z) features.

    Between 1 (collapsed) and min(B - 1, Z).
    """
    singular = torch.linalg.svdvals(features - features.mean(0))
    share = singular / singular.sum().clamp_min(1e-12)
    return torch.exp(torch.special.entr(share).sum())


def gradient_cosines(terms: Mapping[str, Tensor], reference: str, encoder: Encoder) -> dict[str, Tensor]:
    """Cosine between the encoder gradient of each term and that of `reference`: negative means they fight."""
    parameters = [p for p in encoder.parameters() if p.requires_grad]
    if not parameters:
        return {}

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
