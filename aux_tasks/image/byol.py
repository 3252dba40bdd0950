"""BYOL: predict a momentum encoder's projection of another view."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, TaskSetting
from aux_tasks.views import ViewTask, perceptron, retrieval, spread
from encoders import Encoder
from encoders.momentum import follow, momentum_copy
from harness.checks import check_least, check_within
from replay import Batch


class BYOL(ViewTask):
    """2 - 2 cos(predictor(z), z'), from each view to the other, summed (Grill et al. 2020, "Bootstrap your own latent",
    equation 2): z is the projection of one view, z' that of the other by momentum copies, without gradient.

    One point for all images would solve it; predictor and stopped gradient keep that from happening, and `spread`, 1
    when all is well, falls to 0 when it does. `accuracy` is for diagnosis: the share of views whose
    closest view in the batch is their other view. The copies follow at one pace, the paper's ever more slowly. As in
    the authors' code, each view is normalised over the batch by itself.

    Args:
        setting: the run.
        hidden: width of the hidden layers of projection and predictor.
        projection_dim: size of projection and prediction.
        momentum: share of the copies of encoder and projection that each update keeps.
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
        projection_dim: int = 128,
        momentum: float = 0.99,
        **options: Any,
    ) -> None:
        check_least(1, hidden=hidden, projection_dim=projection_dim)
        check_within("[0, 1]", momentum=momentum)
        super().__init__(setting, perceptron(setting.feature_dim, hidden, projection_dim), **options)
        self.momentum = momentum
        self.predictor = perceptron(projection_dim, hidden, projection_dim)
        self.target_encoder = momentum_copy(setting.encoder)
        self.target_head = momentum_copy(self.head)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the sum of both cosine losses (B,), in [0, 8]."""
        pixels = self.two_views(batch.obs)
        embedding = self.embed(pixels, encoder)
        predicted = self.each_view(self.predictor, embedding).float()
        target = self.target(pixels).roll(len(batch.obs), 0)  # of the other view
        loss = 2 - 2 * F.cosine_similarity(predicted, target)
        first, own = predicted[: len(batch.obs)], target[: len(batch.obs)]
        return AuxOutput(loss.view(2, -1).sum(0), retrieval(first, own) | {"spread": spread(embedding)})

    @torch.no_grad()
    def target(self, pixels: Tensor) -> Tensor:
        """Return projections (B, D) by the momentum copies."""
        return self.each_view(self.target_head, self.target_encoder(pixels)).float()

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Move the momentum copies."""
        follow(self.target_encoder, encoder, self.momentum)
        follow(self.target_head, self.head, self.momentum)
