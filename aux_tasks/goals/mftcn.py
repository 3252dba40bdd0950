"""Multi-frame TCN: time-contrastive embeddings of short clips, which capture motion."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, Examples, TaskSetting
from aux_tasks.goals.base import GoalTask
from aux_tasks.goals.tcn import check_moments, choose_moments, imitation_reward, retrieval_of_moments, two_views
from aux_tasks.parts.clips import at_times, draw_times
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class MultiFrameTCN(GoalTask):
    """TCN of several frames (Dwibedi et al. 2018, "Learning actionable representations from visual observations").

    A moment is the last `frames` observations, `stride` steps apart. The encoder makes maps of each; 3-D convolutions
    over time and space, which each take a step of time away, join them; a linear layer gives the embedding. Of K
    moments of a clip in two views, a_i and p_i, the n-pairs loss (Sohn 2016) is

        loss = mean_i -log softmax_j(a_i . p_j) at j = i, + regularisation / 4 * mean_i (|a_i|^2 + |p_i|^2)

    Embeddings are not normalised. `accuracy` is that of `TCN`.

    Args:
        setting: the run. Frame stacking would show the frames twice: use frame_stack=1.
        clip_length: observations that the moments, with all their frames, are drawn from.
        frames: of a moment.
        stride: steps from one to the next.
        moments: of each clip.
        gap: the least distance between two of them.
        embedding_dim: size of the embedding.
        channels: of the 3-D convolutions.
        regularisation: of the embeddings' norm.

    Raises:
        ValueError: the moments do not fit into the clip, or an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip_views"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        clip_length: int = 29,
        frames: int = 3,
        stride: int = 2,
        moments: int = 8,
        gap: int = 2,
        embedding_dim: int = 32,
        channels: int = 32,
        regularisation: float = 0.002,
    ) -> None:
        super().__init__(setting)
        check_least(2, frames=frames)
        check_least(1, stride=stride, embedding_dim=embedding_dim, channels=channels)
        check_least(0, regularisation=regularisation)
        check_moments(moments, gap, clip_length - (frames - 1) * stride)
        self.clip_length, self.moments, self.gap = clip_length, moments, gap
        self.frames, self.stride, self.regularisation = frames, stride, regularisation
        self.goal_dim = embedding_dim
        inputs, height, width = setting.map_shape
        layers: list[nn.Module] = []
        for _ in range(frames - 1):
            layers += [nn.Conv3d(inputs, channels, (2, 3, 3), padding=(0, 1, 1)), nn.ReLU()]
            inputs = channels
        self.head = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, embedding_dim))

    def embed(self, obs: Tensor, encoder: Encoder, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return embeddings (B, G).

        Args:
            obs: (B, frames * C, H, W) uint8, the observations of each moment, oldest first; or (B, C, H, W) of one that
                stands still.
            encoder: the shared encoder.
            context: not used.
        """
        maps = encoder.maps(obs.reshape(-1, *encoder.obs_shape))
        maps = maps.view(len(obs), -1, *maps.shape[1:]).expand(-1, self.frames, -1, -1, -1)  # one that stands still
        return self.head(maps.transpose(1, 2)).float()  # type: ignore[no-any-return]

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Return the reward (B,) of embeddings (B, G); see `imitation_reward`."""
        return imitation_reward(achieved, desired)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the n-pairs loss (B,) of the moments of each clip."""
        pictures, _ = self._draw(batch)
        embedding = self.embed(pictures.flatten(0, 2), encoder).view(*pictures.shape[:3], -1)
        loss = n_pairs(embedding[:, 0], embedding[:, 1], self.regularisation)
        return AuxOutput(loss, retrieval_of_moments(embedding, torch.ones_like(loss)))

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the moments of one clip, in both views, and the closest of the second for each of the first."""
        pictures, times = self._draw(batch)
        embedding = self.embed(pictures[0].flatten(0, 1), encoder).view(*pictures.shape[1:3], -1)
        newest = pictures[0, :, :, -encoder.obs_shape[0] :]
        return choose_moments(newest, embedding, times[0])

    def _draw(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return both views (B, 2, K, frames * C, H, W) of K moments, and their times (B, K)."""
        assert batch.clip_views is not None
        back = (self.frames - 1) * self.stride
        times = back + draw_times(
            len(batch.clip_views), self.moments, self.clip_length - back, self.gap, self.generator
        )
        views = two_views(batch.clip_views, self.generator)
        each = times[:, :, None] + torch.arange(-back, 1, self.stride, device=times.device)
        return at_times(views, each).movedim(3, 1).flatten(3, 4), times


def n_pairs(anchor: Tensor, positive: Tensor, regularisation: float) -> Tensor:
    """Return the n-pairs loss (B,) of (B, K, D): each anchor has to find its own among the positives of its clip.

    Sohn 2016, "Improved deep metric learning with multi-class n-pair loss objective", with its L2 penalty.
    """
    logits = anchor @ positive.mT
    own = torch.arange(logits.shape[1], device=logits.device).expand(logits.shape[:2])
    missed = F.cross_entropy(logits.mT, own, reduction="none").mean(1)
    norms = anchor.square().sum(2) + positive.square().sum(2)
    return missed + regularisation / 4 * norms.mean(1)
