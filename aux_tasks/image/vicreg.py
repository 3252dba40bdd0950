"""VICReg: embeddings of two views agree, vary over the batch, and have uncorrelated dimensions."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, TaskSetting
from aux_tasks.views import ViewTask, off_diagonal, perceptron, retrieval
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class VICReg(ViewTask):
    """invariance * mean |z - z'|^2 / D + variance * mean_{z, z'} mean_d max(0, 1 - std_d) + covariance * sum_{z, z'}
    sum_{i != j} cov_ij^2 / D (Bardes, Ponce, LeCun 2022, "VICReg: variance-invariance-covariance regularization for
    self-supervised learning", with the factors of the authors' code).

    One point for all images costs `variance`; `std`, 1 when all is well, falls to 0 there. Variance and covariance
    belong to the batch: every sample has the same loss. `accuracy` is for diagnosis: the share of views whose
    closest view in the batch is their other view. As in the authors' code, each view goes through the expander by
    itself.

    Args:
        setting: the run.
        hidden: width of the expander's two hidden layers.
        projection_dim: D, size of what the expander gives.
        invariance, variance, covariance: weights.
        options: of `ViewTask`.

    Raises:
        ValueError: an option is out of range.
    """

    separate_views: ClassVar[bool] = True

    def __init__(
        self,
        setting: TaskSetting,
        *,
        hidden: int = 256,
        projection_dim: int = 256,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        **options: Any,
    ) -> None:
        check_least(1, hidden=hidden, projection_dim=projection_dim)
        check_least(0, invariance=invariance, variance=variance, covariance=covariance)
        super().__init__(setting, perceptron(setting.feature_dim, hidden, hidden, projection_dim), **options)
        self.invariance, self.variance, self.covariance = invariance, variance, covariance

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the three terms (B,), and the standard deviation of the embeddings."""
        return self.compare(*self.embed(self.two_views(batch.obs), encoder).chunk(2))

    def compare(self, first: Tensor, second: Tensor) -> AuxOutput:
        """Return the loss (B,) and metrics of two views' embeddings (B, D)."""
        distance = (first - second).square().mean(1)
        halves = (first, second)
        hinge = sum(F.relu(1 - deviation(half)).mean() for half in halves) / 2
        redundancy = sum(off_diagonal(covariance(half)) for half in halves) / first.shape[1]
        loss = self.invariance * distance + self.variance * hinge + self.covariance * redundancy
        return AuxOutput(loss, retrieval(first, second) | {"std": deviation(first.detach()).mean()})


def covariance(embedding: Tensor) -> Tensor:
    """Return the covariance (D, D) over the batch; `Tensor.cov` would wait for the device."""
    centred = embedding - embedding.mean(0)
    return centred.T @ centred / (len(embedding) - 1)


def deviation(embedding: Tensor) -> Tensor:
    """Return the standard deviation (D,) over the batch, with a gradient at 0 too."""
    return (embedding.var(0) + 1e-4).sqrt()
