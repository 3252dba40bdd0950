"""Barlow Twins: each feature correlates with itself across two views, and with no other feature."""

from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, TaskSetting
from aux_tasks.views import ViewTask, off_diagonal, perceptron, retrieval, spread
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class BarlowTwins(ViewTask):
    """(sum_i (1 - C_ii)^2 + redundancy * sum_{i != j} C_ij^2) / D, where C (D, D) correlates the projections of two
    views over the batch (Zbontar et al. 2021, "Barlow Twins: self-supervised learning via redundancy reduction",
    equation 1, there without the division, which frees the size of the loss from D).

    A constant has no correlation and costs 1, so there is no trivial solution. The loss belongs to the batch: every
    sample has the same. `accuracy` is for diagnosis: the share of views whose closest view in the batch is their other
    view. As in the authors' code, each view goes through the head by itself.

    Args:
        setting: the run.
        hidden: width of the projection's hidden layer.
        projection_dim: D, size of the projection.
        redundancy: weight of the correlations between features.
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
        redundancy: float = 0.005,
        **options: Any,
    ) -> None:
        check_least(1, hidden=hidden, projection_dim=projection_dim)
        check_least(0, redundancy=redundancy)
        super().__init__(setting, perceptron(setting.feature_dim, hidden, projection_dim), **options)
        self.redundancy = redundancy

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the batch's loss (B,), the mean agreement C_ii, 1 at best, and the spread of the projections."""
        halves = self.embed(self.two_views(batch.obs), encoder).chunk(2)
        first, second = (F.batch_norm(half, None, None, training=True) for half in halves)
        size, dim = first.shape
        correlation = (first.T @ second).float() / size
        agreement = correlation.diagonal()
        loss = ((1 - agreement).square().sum() + self.redundancy * off_diagonal(correlation)) / dim
        metrics = {"agreement": agreement.detach().mean(), "spread": spread(first)}
        return AuxOutput(loss.expand(size), retrieval(first, second) | metrics)
