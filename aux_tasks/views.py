"""Tasks on random views of the pixels, and metrics that tell a solved task from a collapsed one."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxTask, Examples, TaskSetting, classify
from encoders import Encoder
from encoders.views import VIEWS
from harness.checks import check_choice
from replay import Batch


class ViewTask(AuxTask):
    """A head on the features of views, by a preset of `encoders.views`.

    Args:
        setting: the run.
        head: features (B, Z) to what the loss compares (B, D).
        views: the preset: shift for games, digits or photo.

    Raises:
        ValueError: an unknown preset.
    """

    separate_views: ClassVar[bool] = False  # the head normalises each view over the batch by itself

    def __init__(self, setting: TaskSetting, head: nn.Module, *, views: str = "shift") -> None:
        super().__init__(setting)
        check_choice("views", views, VIEWS)
        self.views, self.frame_stack, self.head = VIEWS[views], setting.frame_stack, head

    def view(self, obs: Tensor) -> Tensor:
        """Return a view (B, C, H, W) of each observation."""
        return self.views(obs, self.generator, self.frame_stack)

    def two_views(self, obs: Tensor) -> Tensor:
        """Return views (2B, C, H, W): samples i and B + i are of the same observation."""
        return torch.cat([self.view(obs), self.view(obs)])

    def embed(self, pixels: Tensor, encoder: Encoder) -> Tensor:
        """Return what the loss compares, (B, D) of views (B, C, H, W); with `separate_views`, of `two_views`."""
        return self.each_view(self.head, encoder(pixels)).float()

    def each_view(self, head: nn.Module, features: Tensor) -> Tensor:
        """Return head(features), with `separate_views` of each half of the batch by itself."""
        halves = features.chunk(2) if self.separate_views else (features,)
        return torch.cat([head(half) for half in halves])

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return both views of the first eight observations, and the second view that is closest to the first."""
        pixels = self.two_views(batch.obs)
        first, second = F.normalize(self.embed(pixels, encoder)).chunk(2)
        return choices("view", "second view", pixels, (first[:8] @ second.T).argmax(1))


def choices(asked: str, candidate: str, pixels: Tensor, chosen: Tensor) -> Examples:
    """Return examples of matching each question to its candidate in the batch.

    Args:
        asked, candidate: what questions and candidates are called.
        pixels: (2B, C, H, W) B questions, then B candidates in their order.
        chosen: (K,) index of the candidate chosen by each of the first K questions.
    """
    questions, candidates = pixels.to(torch.uint8).chunk(2)
    own = {asked: questions[: len(chosen)], f"its {candidate}": candidates[: len(chosen)]}
    question = f"Which {candidate} of the {len(candidates)} in the batch belongs to this {asked}?"
    return matches(question, own | {"chosen": candidates[chosen]}, chosen)


def matches(question: str, pictures: Mapping[str, Tensor], chosen: Tensor) -> Examples:
    """Return examples whose answers are indices into the batch: `chosen` (K,), where 0 to K - 1 are right."""
    return Examples(question, pictures, [str(j) for j in chosen.tolist()], [str(i) for i in range(len(chosen))])


def perceptron(*widths: int) -> nn.Sequential:
    """Build linear layers from width to width, with batch normalisation and ReLU between them.

    The statistics are always the batch's, so that computing a loss changes nothing.
    """
    layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for inputs, outputs in pairwise(widths[1:]):
        layers += [nn.BatchNorm1d(inputs, track_running_stats=False), nn.ReLU(), nn.Linear(inputs, outputs)]
    return nn.Sequential(*layers)


def retrieval(query: Tensor, key: Tensor) -> dict[str, Tensor]:
    """Return the share of queries (B, D) closest, by cosine, to their own key among the batch's, and chance 1 / B.

    Collapsed embeddings all choose the first key, which is chance.
    """
    cosine = F.normalize(query.detach()) @ F.normalize(key.detach()).T
    return classify(cosine, torch.arange(len(cosine), device=cosine.device)).metrics


def spread(embedding: Tensor) -> Tensor:
    """Return the standard deviation over the batch of normalised embeddings (B, D), mean over D, times sqrt(D).

    About 1 when they fill the sphere, 0 when they are one point (Chen & He 2021, "Exploring simple Siamese
    representation learning").
    """
    return F.normalize(embedding.detach()).std(0).mean() * math.sqrt(embedding.shape[1])


def off_diagonal(matrix: Tensor) -> Tensor:
    """Return the sum of squares off the diagonal, in float32: it is a difference of two large sums."""
    squares = matrix.float().square()
    return squares.sum() - squares.diagonal().sum()
