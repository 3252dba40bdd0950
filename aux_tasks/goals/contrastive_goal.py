"""Contrastive goals: embeddings that tell the future of an observation from that of others."""

from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, Examples, TaskSetting, classify
from aux_tasks.goals.base import GoalTask
from aux_tasks.parts.mlp import mlp
from aux_tasks.views import choices
from encoders import Encoder
from harness.checks import check_least
from replay import Batch

PENALTY = 0.1  # of the squared log-partition (Bortkiewicz et al. 2025, JaxGCRL)


class ContrastiveGoal(GoalTask):
    """Symmetric InfoNCE between observations and their discounted futures, with the energy -|psi(s) - psi(g)|
    (Eysenbach et al. 2022, "Contrastive learning as goal-conditioned reinforcement learning"). Energy and loss are
    those of Bortkiewicz et al. 2025, "Accelerating goal-conditioned RL algorithms and research": half of the sum of
    both directions and the penalty 0.1 * logsumexp^2.

    There the critic embeds state and action by one network and the goal by another. Here one psi without the action
    stands on both sides, so that the energy gives the reward of any two pictures. The future is `Batch.future`; chance
    is 1 / B.

    Args:
        setting: the run.
        latent_dim: G; a small one keeps the distances meaningful.
        hidden: width of the hidden layer of psi, which is layer-normalised.

    Raises:
        ValueError: a width is less than 1.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "future"})

    def __init__(self, setting: TaskSetting, *, latent_dim: int = 16, hidden: int = 256) -> None:
        super().__init__(setting)
        check_least(1, latent_dim=latent_dim)
        self.goal_dim, self.gamma = latent_dim, setting.gamma
        self.psi = mlp(setting.feature_dim, hidden, latent_dim)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return InfoNCE of both directions and the penalty (B,), halved."""
        energy = self._energy(self.psi(features).float(), batch, encoder)
        own = torch.arange(len(energy), device=energy.device)
        forward, backward = classify(energy, own), classify(energy.T, own)
        penalty = PENALTY * energy.logsumexp(1).square()
        return AuxOutput((forward.loss + backward.loss + penalty) / 2, forward.metrics)

    def embed(self, obs: Tensor, encoder: Encoder, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return psi (B, G)."""
        embedding: Tensor = self.psi(encoder(obs)).float()
        return embedding

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Return the energy times 1 - gamma of the pretraining (B,), so that returns stay small."""
        return (1 - self.gamma) * super().reward(achieved, desired)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the first eight observations with their futures, and the closest futures."""
        assert batch.future is not None
        closest = self._energy(self.embed(batch.obs[:8], encoder), batch, encoder).argmax(1)
        return choices("observation", "future", torch.cat([batch.obs, batch.future]), closest)

    def _energy(self, now: Tensor, batch: Batch, encoder: Encoder) -> Tensor:
        """Return energies (K, B) of embeddings (K, G) with the batch's futures."""
        assert batch.future is not None
        distance: Tensor = torch.linalg.vector_norm(now[:, None] - self.embed(batch.future, encoder), dim=2)
        return -distance
