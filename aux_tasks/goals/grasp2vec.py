"""Grasp2Vec: the difference of two scenes is the embedding of the grasped object."""

import copy
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, Examples, TaskSetting, classify
from aux_tasks.goals.base import GoalTask
from aux_tasks.views import matches
from encoders import Encoder
from harness.checks import check_least
from replay import Batch

SHOWN = 8  # samples in `examples`


class Grasp2Vec(GoalTask):
    """The n-pairs loss of phi_s(before) - phi_s(after) with phi_o(outcome), both ways (Jang et al. 2018, "Grasp2Vec:
    learning object representations from self-supervised grasping", section 3.1).

    For pairs a_i, b_i it is -log softmax_j(a_i^T b_j) at j = i, plus `regularisation` (||a_i||^2 + ||b_i||^2), which
    keeps the unnormalised embeddings from growing; the loss is that of (a, b) plus that of (b, a). Batches that show
    one object twice bound the accuracy: its other picture is a negative too.

    phi_s is the mean over positions of a rectified linear map of the encoder's `maps`, and linear in the positions, so
    that phi_o(outcome)^T phi_s at each position tells where the object lies. phi_o is a network of the head of the same
    form, with a trunk that begins as a copy of the encoder's. A goal is phi_o of a picture of the object held, and the
    reward the cosine of two of them, at most 1; it is 0 for an object that was not there.

    Views are before, after and outcome.

    Args:
        setting: the run.
        embedding_dim: D, size of the embeddings.
        regularisation: of the squared norms of the embeddings.

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"views"})

    def __init__(self, setting: TaskSetting, *, embedding_dim: int = 128, regularisation: float = 5e-4) -> None:
        super().__init__(setting)
        check_least(1, embedding_dim=embedding_dim)
        check_least(0, regularisation=regularisation)
        self.goal_dim, self.regularisation = embedding_dim, regularisation
        channels = setting.map_shape[0]
        self.scene_head, self.outcome_head = (nn.Conv2d(channels, embedding_dim, 1) for _ in range(2))
        trunk, standardize = copy.deepcopy(setting.encoder.trunk), setting.encoder.pixel_moments is not None
        self.outcome_encoder = Encoder(trunk, nn.Sequential(), setting.obs_shape, standardize=standardize)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the n-pairs loss (B,), and the share of differences whose own outcome is the nearest by product."""
        assert batch.views is not None
        before, after, outcome = batch.views.unbind(1)
        lost, taken = self.difference(before, after, encoder), self.embed(outcome, encoder)
        own = torch.arange(len(lost), device=lost.device)
        outputs = [classify(product, own) for product in (lost @ taken.T, taken @ lost.T)]
        norms = lost.square().sum(1) + taken.square().sum(1)
        loss = outputs[0].loss + outputs[1].loss + 2 * self.regularisation * norms
        return AuxOutput(loss, outputs[0].metrics)

    def difference(self, before: Tensor, after: Tensor, encoder: Encoder) -> Tensor:
        """Return phi_s(before) - phi_s(after) (B, D) of scenes (B, C, H, W)."""
        scenes = self.scene_maps(torch.cat([before, after]), encoder).mean((2, 3))
        first, second = scenes.chunk(2)
        return first - second

    def scene_maps(self, scene: Tensor, encoder: Encoder) -> Tensor:
        """Return phi_s at each position (B, D, H', W') of scenes (B, C, H, W)."""
        return F.relu(self.scene_head(encoder.maps(scene))).float()

    def embed(self, obs: Tensor, encoder: Encoder, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return phi_o (B, D) of pictures (B, C, H, W) of objects held; see `GoalTask.embed`."""
        return F.relu(self.outcome_head(self.outcome_encoder.maps(obs))).mean((2, 3)).float()

    def heatmap(self, scene: Tensor, goal: Tensor, encoder: Encoder) -> Tensor:
        """Return where goals (B, D) lie in scenes (B, C, H, W): products (B, H', W'), large at the object."""
        return torch.einsum("bdhw,bd->bhw", self.scene_maps(scene, encoder), goal)

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Return the cosine (B,) of goals (B, D); see `GoalTask.reward`."""
        return F.cosine_similarity(achieved, desired)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return scenes, outcomes, heatmaps of these, and the batch's outcome that is nearest to what was lost."""
        assert batch.views is not None
        before, after, outcome = batch.views.unbind(1)
        goal = self.embed(outcome, encoder)
        likeness = F.normalize(self.difference(before, after, encoder)) @ F.normalize(goal).T
        chosen = likeness.argmax(1)[:SHOWN]
        heat = brightness(self.heatmap(before[:SHOWN], goal[:SHOWN], encoder), before.shape[2:])
        pictures = {"before": before, "after": after, "grasped": outcome}
        shown = {name: scene[:SHOWN] for name, scene in pictures.items()}
        shown |= {"where it lay": heat.expand_as(before[:SHOWN]), "chosen": outcome[chosen]}
        question = f"Which of the {len(goal)} objects in the batch does the second scene lack?"
        return matches(question, shown, chosen)


def brightness(heat: Tensor, size: torch.Size) -> Tensor:
    """Return pictures (B, 1, H, W) uint8 of maps (B, H', W'), each from black to white."""
    low, high = heat.amin((1, 2), keepdim=True), heat.amax((1, 2), keepdim=True)
    scaled = (heat - low) / (high - low).clamp_min(1e-6) * 255
    grown = F.interpolate(scaled[:, None], size, mode="bilinear", align_corners=False)
    return grown.round().to(torch.uint8)
