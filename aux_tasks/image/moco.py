"""MoCo: which key is another view of this query, among those of many past batches?"""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, TaskSetting, check_choice
from aux_tasks.views import ViewTask, retrieval, spread
from encoders import Encoder
from encoders.momentum import follow
from replay import Batch

HEADS = ("linear", "mlp")


class MoCo(ViewTask):
    """InfoNCE of a query with its own key against a queue of K keys, -log softmax(q^T k / temperature) at the own one
    (He et al. 2020, "Momentum contrast for unsupervised visual representation learning", equations 1 and 2).

    Keys come, without gradient, from momentum copies of encoder and head. Slots of the queue that no key has filled
    yet are no candidates: random vectors there would be told apart at once. No head normalises over the batch, which
    would tell which query and key share one. Keys in the queue are older than the own one, and that alone can give it
    away, so `accuracy` is that of finding it among the batch's, all of one age.

    Args:
        setting: the run.
        projection: `linear`, the first version, or `mlp`, the second (Chen et al. 2020, "Improved baselines with
            momentum contrastive learning").
        hidden, width: of the projection; the linear one has no hidden layer.
        queue: K, at least the batch size.
        temperature: of the softmax, above 0.
        tau: share of encoder and head blended into their copies at each step, one minus the paper's momentum.
        options: of `ViewTask`.

    Raises:
        ValueError: an unknown projection, an empty queue, or a temperature not above 0.
    """

    queue: Tensor
    written: Tensor

    def __init__(
        self,
        setting: TaskSetting,
        *,
        projection: str = "mlp",
        hidden: int = 256,
        width: int = 128,
        queue: int = 2048,
        temperature: float = 0.1,
        tau: float = 0.01,
        **options: Any,
    ) -> None:
        check_choice("projection", projection, HEADS)
        if queue < 1 or temperature <= 0:
            raise ValueError(f"queue must be at least 1 and temperature above 0, got {queue} and {temperature}")
        inputs = setting.feature_dim
        deep = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, width))
        super().__init__(setting, deep if projection == "mlp" else nn.Linear(inputs, width), **options)
        self.temperature, self.tau = temperature, tau
        self.target_encoder = deepcopy(setting.encoder).requires_grad_(False)
        self.target_head = deepcopy(self.head).requires_grad_(False)
        self.register_buffer("queue", torch.zeros(queue, width))
        self.register_buffer("written", torch.zeros((), dtype=torch.int64))  # keys, all told
        self.fresh: Tensor | None = None  # keys that wait for the end of the step: a look at the loss adds none

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """InfoNCE (B,), and the spread of the keys."""
        length = len(self.queue)
        assert len(batch.obs) <= length, f"a queue of {length} keys is too short for batches of {len(batch.obs)}"
        query_obs, key_obs = self.two_views(batch.obs).chunk(2)
        query = F.normalize(self.embed(query_obs, encoder))
        with torch.no_grad():
            key = F.normalize(self.target_head(self.target_encoder(key_obs)).float())
        self.fresh = key
        empty = torch.arange(length, device=key.device) >= self.written
        others = (query @ self.queue.T).float().masked_fill(empty, -torch.inf)
        logits = torch.cat([(query * key).sum(1, keepdim=True), others], dim=1) / self.temperature
        return AuxOutput(-logits.log_softmax(1)[:, 0], retrieval(query, key) | {"spread": spread(key)})

    @torch.no_grad()
    def after_step(self, encoder: Encoder) -> None:
        """Let the copies follow, and put the keys of the step in the place of the oldest."""
        follow(self.target_encoder, encoder, self.tau)
        follow(self.target_head, self.head, self.tau)
        if self.fresh is not None:
            place = (self.written + torch.arange(len(self.fresh), device=self.fresh.device)) % len(self.queue)
            self.queue.index_copy_(0, place, self.fresh)
            self.written += len(self.fresh)
            self.fresh = None
