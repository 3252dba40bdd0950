"""MoCo: which key is another view of this query, among those of many past batches?"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, TaskSetting
from aux_tasks.views import ViewTask, retrieval, spread
from encoders import Encoder
from encoders.momentum import follow, momentum_copy
from harness.checks import check_above, check_choice, check_least, check_within
from replay import Batch

HEADS = ("linear", "mlp")


class MoCo(ViewTask):
    """InfoNCE of a query with its own key against a queue of K keys, -log softmax(q^T k / temperature) at the own one
    (He et al. 2020, "Momentum contrast for unsupervised visual representation learning", equations 1 and 2).

    Keys come, without gradient, from momentum copies of encoder and head. Those that enter the queue are of a view of
    their own, so that a loss changes nothing: one more forward pass of the copies in each update. Slots of the queue
    that no key has filled yet are no candidates: random vectors there would be told apart at once. No head normalises
    over the batch, which would tell which query and key share one. Keys in the queue are older than the own one, and
    that alone can give it away, so `accuracy` is that of finding it among the batch's, all of one age.

    Args:
        setting: the run.
        projection: `linear`, the first version, or `mlp`, the second (Chen et al. 2020, "Improved baselines with
            momentum contrastive learning").
        hidden: width of the projection's hidden layer; the linear one has none.
        projection_dim: size of the projection.
        queue: K, at least the batch size.
        temperature: of the softmax, above 0.
        momentum: share of the copies of encoder and head that each update keeps, m in the paper.
        options: of `ViewTask`.

    Raises:
        ValueError: an unknown projection, or an option out of range.
    """

    queue: Tensor
    written: Tensor

    def __init__(
        self,
        setting: TaskSetting,
        *,
        projection: str = "mlp",
        hidden: int = 256,
        projection_dim: int = 128,
        queue: int = 2048,
        temperature: float = 0.1,
        momentum: float = 0.99,
        **options: Any,
    ) -> None:
        check_choice("projection", projection, HEADS)
        check_least(1, hidden=hidden, projection_dim=projection_dim, queue=queue)
        check_above(0, temperature=temperature)
        check_within("[0, 1]", momentum=momentum)
        inputs = setting.feature_dim
        deep = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, projection_dim))
        super().__init__(setting, deep if projection == "mlp" else nn.Linear(inputs, projection_dim), **options)
        self.temperature, self.momentum = temperature, momentum
        self.target_encoder = momentum_copy(setting.encoder)
        self.target_head = momentum_copy(self.head)
        self.register_buffer("queue", torch.zeros(queue, projection_dim))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))  # keys written so far

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return InfoNCE (B,), and the spread of the keys.

        Raises:
            ValueError: the queue is shorter than the batch.
        """
        length = len(self.queue)
        if length < len(batch.obs):
            raise ValueError(f"aux.moco.options.queue={length}: must be at least the batch size, {len(batch.obs)}")
        query_obs, key_obs = self.two_views(batch.obs).chunk(2)
        query = F.normalize(self.embed(query_obs, encoder))
        key = self.keys(key_obs)
        empty = torch.arange(length, device=key.device) >= self.written
        others = (query @ self.queue.T).float().masked_fill(empty, -torch.inf)
        logits = torch.cat([(query * key).sum(1, keepdim=True), others], dim=1) / self.temperature
        return AuxOutput(-logits.log_softmax(1)[:, 0], retrieval(query, key) | {"spread": spread(key)})

    @torch.no_grad()
    def keys(self, pixels: Tensor) -> Tensor:
        """Return the keys (B, D) of views (B, C, H, W), of length 1, by the momentum copies."""
        return F.normalize(self.target_head(self.target_encoder(pixels)).float())

    @torch.no_grad()
    def after_step(self, batch: Batch, encoder: Encoder) -> None:
        """Replace the oldest keys of the queue by the batch's, then move the momentum copies."""
        key = self.keys(self.view(batch.obs))
        slot = (self.written + torch.arange(len(key), device=key.device)) % len(self.queue)
        self.queue.index_copy_(0, slot, key)
        self.written += len(key)
        follow(self.target_encoder, encoder, self.momentum)
        follow(self.target_head, self.head, self.momentum)
