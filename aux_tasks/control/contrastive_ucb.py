"""Contrastive UCB: which next state followed this action? Where the answer is new, there is a bonus."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, BonusTask, TaskSetting
from aux_tasks.parts.dynamics import action_vector
from aux_tasks.parts.mlp import mlp
from encoders import Encoder
from harness.checks import check_above, check_least
from replay import Batch


class ContrastiveUCB(BonusTask):
    """log(1 + 1/f(s, a, s')) / 2 + log(1 + f(s, a, s-)) / 2, mean over the noise s-, the next states of the other
    transitions of the batch (Qiu et al. 2022, "Contrastive UCB: Provably efficient contrastive self-supervised learning
    in online reinforcement learning"). Its minimum is f = P(s' | s, a) / P(s-).

    Where the paper has f = phi(s, a) . psi(s'), here log f is that product, as in InfoNCE: positive features learned
    too little to tell states apart. `accuracy` is the mean of two rates: true next states with f > 1, and noise with
    f < 1; chance is 0.5.

    The exploration bonus is sqrt(phi^T Sigma^-1 phi) with |phi| = 1 and Sigma = lambda I + sum phi phi^T over the
    batches learned from. Of a pair drawn n times whose features are orthogonal to all others it is
    1 / sqrt(lambda + n). As in the authors' code, where
    the Q head gives the features, a transition counts each time it is drawn, with its features of that time.

    Args:
        setting: the run.
        latent_dim: D, the width of phi and psi.
        hidden: width of the hidden layer of each.
        ridge: lambda.

    Raises:
        ValueError: a width or lambda is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "features", "action", "next_obs"})

    def __init__(self, setting: TaskSetting, *, latent_dim: int = 64, hidden: int = 256, ridge: float = 1.0) -> None:
        super().__init__(setting)
        check_least(1, latent_dim=latent_dim, hidden=hidden)
        check_above(0, ridge=ridge)
        self.action_dim = setting.action_dim
        self.phi = mlp(setting.feature_dim + setting.action_dim, hidden, latent_dim)
        self.psi = mlp(setting.feature_dim, hidden, latent_dim)
        self.register_buffer("covariance", ridge * torch.eye(latent_dim, dtype=torch.float64))

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:
        """Return the contrastive loss (B,), log 2 for f = 1 everywhere."""
        assert batch.next_obs is not None
        psi = self.psi(encoder(batch.next_obs))
        log_ratio = (self._phi(features, batch.action) @ psi.T).float()  # (B, B): log f, of every next state
        true, others = log_ratio.diagonal(), max(len(log_ratio) - 1, 1)
        noise = (F.softplus(log_ratio).sum(1) - F.softplus(true)) / others
        rejected = ((log_ratio < 0).sum() - (true < 0).sum()) / (others * len(true))
        accuracy = ((true > 0).float().mean() + rejected) / 2
        metrics = {"accuracy": accuracy, "chance": torch.full_like(accuracy, 0.5)}
        return AuxOutput((F.softplus(-true) + noise) / 2, metrics)

    def bonus(self, batch: Batch, features: Tensor, encoder: Encoder) -> Tensor:  # noqa: ARG002
        """Return sqrt(phi^T Sigma^-1 phi) (B,): with Sigma = L L^T, the norm of L^-1 phi."""
        covariance = self.get_buffer("covariance")
        factor = torch.linalg.cholesky_ex(covariance).L  # `cholesky` would ask the device whether there is one
        phi = self._phi(features, batch.action).double()
        return torch.linalg.solve_triangular(factor, phi.T, upper=False).norm(dim=0).float()  # type: ignore[no-any-return]

    @torch.no_grad()
    def count(self, batch: Batch, encoder: Encoder) -> None:
        """Add the batch to Sigma."""
        phi = self._phi(encoder(batch.obs), batch.action).double()
        self.get_buffer("covariance").addmm_(phi.T, phi)

    def _phi(self, features: Tensor, action: Tensor) -> Tensor:
        """Return unit features (B, D) of states and actions."""
        inputs = torch.cat([features, action_vector(action, self.action_dim)], dim=1)
        return F.normalize(self.phi(inputs))
