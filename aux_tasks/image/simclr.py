"""SimCLR: which of all the views shows the same observation?"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, TaskSetting, classify
from aux_tasks.views import ViewTask, perceptron, spread
from encoders import Encoder
from harness.checks import check_above, check_least
from replay import Batch


class SimCLR(ViewTask):
    """NT-Xent: -log softmax_j(cos(z_i, z_j) / temperature) at the other view of i, over the other 2B - 1 views of the
    batch (Chen et al. 2020, "A simple framework for contrastive learning of visual representations", equation 1).
    The mean of both directions is the loss; chance is 1 / (2B - 1).

    Near-identical frames in a batch are negatives that nothing tells apart: they bound the accuracy from above.

    Args:
        setting: the run.
        hidden: width of the projection's hidden layer.
        projection_dim: size of the projection.
        temperature: of the softmax, above 0.
        options: of `ViewTask`.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(
        self,
        setting: TaskSetting,
        *,
        hidden: int = 256,
        projection_dim: int = 128,
        temperature: float = 0.2,
        **options: Any,
    ) -> None:
        check_least(1, hidden=hidden, projection_dim=projection_dim)
        check_above(0, temperature=temperature)
        super().__init__(setting, perceptron(setting.feature_dim, hidden, projection_dim), **options)
        self.temperature = temperature

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return NT-Xent (B,), the share of views closest to their other, and the spread of the projections."""
        embedding = F.normalize(self.embed(self.two_views(batch.obs), encoder))
        own = torch.arange(len(embedding), device=embedding.device)
        cosine = (embedding @ embedding.T).float().fill_diagonal_(-torch.inf)
        output = classify(cosine / self.temperature, own.roll(len(batch.obs)))
        chance = torch.full_like(output.loss[0].detach(), 1 / (len(own) - 1))
        return AuxOutput(
            output.loss.view(2, -1).mean(0), output.metrics | {"chance": chance, "spread": spread(embedding)}
        )
