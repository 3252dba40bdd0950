"""Time-contrastive networks: one moment looks the same from everywhere, another moment does not."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, Examples, TaskSetting, over_valid
from aux_tasks.goals.base import GoalTask
from aux_tasks.parts.clips import at_times, draw_times, observations
from aux_tasks.parts.mlp import mlp
from encoders import Encoder
from harness.checks import check_least
from replay import Batch

ALPHA, BETA, GAMMA = 1.0, 0.1, 1e-5  # of the reward; the paper gives its form alone


class TCN(GoalTask):
    """Two views of a moment are closer than any two moments of the sequence (Sermanet et al. 2018, "Time-contrastive
    networks: self-supervised learning from video").

    Each clip gives `moments` times and two of its views. With a moment a, its other view p and another moment n of
    either view,

        loss = max(0, margin + |a - p|^2 - |a - n|^2)

    n is the closest of those that are farther away than p, or the farthest of all where none is. The negatives are the
    other moments of the whole batch: those of the same clip keep a background from being the answer; without those of
    other clips, positions far apart may share an embedding. Embeddings lie on the unit sphere. The head is the last two
    layers of the paper's; the convolutions and the spatial softmax before them are the encoder's part.

    `accuracy` is the share of moments whose closest moment of the other view is their own, 1 / `moments` by chance.

    Args:
        setting: the run.
        clip_length: observations that the moments are drawn from.
        moments: of each clip.
        gap: the least distance between two of them.
        hidden: width of the head's hidden layer.
        embedding_dim: size of the embedding.
        margin: of the squared distance.

    Raises:
        ValueError: the moments do not fit into the clip, or an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip_views"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        clip_length: int = 29,
        moments: int = 8,
        gap: int = 2,
        hidden: int = 256,
        embedding_dim: int = 32,
        margin: float = 0.2,
    ) -> None:
        super().__init__(setting)
        check_moments(moments, gap, clip_length)
        check_least(1, embedding_dim=embedding_dim)
        check_least(0, margin=margin)
        self.clip_length, self.moments, self.gap, self.margin = clip_length, moments, gap, margin
        self.goal_dim = embedding_dim
        self.head = mlp(setting.feature_dim, hidden, embedding_dim)

    def embed(self, obs: Tensor, encoder: Encoder, context: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return embeddings (B, G) on the unit sphere; see `GoalTask.embed`."""
        return F.normalize(self.head(encoder(obs)).float())

    def reward(self, achieved: Tensor, desired: Tensor) -> Tensor:
        """Return the reward (B,) of embeddings (B, G); see `imitation_reward`."""
        return imitation_reward(achieved, desired)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the mean triplet loss (B,) of the moments of each clip, in both directions."""
        pictures, valid, _ = self._draw(batch)
        embedding = self.embed(pictures.flatten(0, 2), encoder).view(*pictures.shape[:3], -1)
        loss = over_valid(semi_hard_triplets(embedding, self.margin), valid)
        return AuxOutput(loss, retrieval_of_moments(embedding, valid))

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the moments of one clip, in both views, and the closest of the second for each of the first."""
        pictures, _, times = self._draw(batch)
        embedding = self.embed(pictures[0].flatten(0, 1), encoder).view(*pictures.shape[1:3], -1)
        return choose_moments(pictures[0], embedding, times[0])

    def _draw(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return both views (B, 2, K, C, H, W) of K moments, which clips are valid (B,), and the times (B, K)."""
        assert batch.clip_views is not None
        times = draw_times(len(batch.clip_views), self.moments, self.clip_length, self.gap, self.generator)
        views = two_views(batch.clip_views, self.generator)
        return at_times(views, times).transpose(1, 2), torch.ones_like(times[:, 0]), times


class SingleViewTCN(TCN):
    """TCN of one camera (Sermanet et al. 2018, section III.B): two moments less than `radius` apart are the same one.

    Args:
        setting: the run.
        clip_length, moments, hidden, embedding_dim, margin: as of `TCN`.
        gap: the least distance of two moments, from which on they are negatives.
        radius: the largest distance of two observations of a moment.

    Raises:
        ValueError: the moments do not fit into the clip, or into their gap, or an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        clip_length: int = 29,
        moments: int = 4,
        gap: int = 8,
        radius: int = 2,
        hidden: int = 256,
        embedding_dim: int = 32,
        margin: float = 0.2,
    ) -> None:
        if not 1 <= radius < gap:
            raise ValueError(f"radius must be from 1 to less than gap={gap}, got {radius}")
        check_moments(moments, gap, clip_length - radius)
        sizes = {
            "clip_length": clip_length,
            "moments": moments,
            "gap": gap,
            "hidden": hidden,
            "embedding_dim": embedding_dim,
        }
        super().__init__(setting, **sizes, margin=margin)
        self.radius = radius

    def _draw(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """As of `TCN`; the second view is the same camera up to `radius` later."""
        clip, inside = observations(batch, self.clip_length)
        times = draw_times(len(clip), self.moments, self.clip_length - self.radius, self.gap, self.generator)
        later = torch.randint(1, self.radius + 1, times.shape, generator=self.generator, device=times.device)
        pairs = torch.stack([times, times + later], dim=1)
        return at_times(clip, pairs), at_times(inside, pairs[:, 1, -1]), times


def check_moments(moments: int, gap: int, length: int) -> None:
    """Raise ValueError unless `moments` times that are `gap` apart, two at least, fit into `length` observations."""
    check_least(2, moments=moments)
    check_least(1, gap=gap)
    if (least := (moments - 1) * gap + 1) > length:
        raise ValueError(f"{moments} moments {gap} apart need {least} observations, but the clip has {length}")


def two_views(clip_views: Tensor, generator: torch.Generator) -> Tensor:
    """Return two different views (B, T, 2, ...) of each clip (B, T, V, ...), in random order."""
    size, _, count = clip_views.shape[:3]
    assert count > 1, "a clip of one view has no other one: use single_view_tcn"
    chosen = torch.rand(size, count, generator=generator, device=generator.device).argsort(1)[:, :2]
    sample = torch.arange(size, device=chosen.device)[:, None]
    return clip_views.transpose(1, 2)[sample, chosen].transpose(1, 2)


def semi_hard_triplets(embedding: Tensor, margin: float) -> Tensor:
    """Return the triplet loss (B,) of embeddings (B, 2, K, D): two views of K moments of each clip.

    Semi-hard negatives of Schroff et al. 2015, "FaceNet", among all other moments of the batch, in both views.
    """
    size, _, count, _ = embedding.shape
    views = embedding.transpose(0, 1).flatten(1, 2)  # (2, BK, D)
    flat = views.flatten(0, 1)
    squared = (flat[:, None] - flat).square().sum(2)  # (2BK, 2BK)
    moment = torch.arange(len(flat), device=flat.device) % (size * count)
    other = moment[:, None] != moment
    positive = (views[0] - views[1]).square().sum(1).repeat(2)[:, None]
    farther = squared.masked_fill(~(other & (squared > positive)), torch.inf).amin(1, keepdim=True)
    farthest = squared.masked_fill(~other, -torch.inf).amax(1, keepdim=True)
    negative = torch.where(farther.isfinite(), farther, farthest)
    return F.relu(margin + positive - negative).view(2, size, count).mean((0, 2))


def retrieval_of_moments(embedding: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """Return the share of moments whose closest one of the other view is their own, of (B, 2, K, D), and chance 1 / K.

    Collapsed embeddings all choose the first, which is chance.
    """
    first, second = embedding.detach().float().unbind(1)
    nearest = torch.cdist(first, second).argmin(2)
    count = nearest.shape[1]
    hits = (nearest == torch.arange(count, device=nearest.device)).float().mean(1)
    chance = torch.full_like(hits[0], 1 / count)
    return {"accuracy": torch.where(valid.any(), over_valid(hits, valid).mean(), chance), "chance": chance}


def choose_moments(pictures: Tensor, embedding: Tensor, times: Tensor) -> Examples:
    """Return examples of finding moments (2, K, C, H, W), at times (K,), again in the other view, by (2, K, D).

    The last picture of a moment is a strip of K parts, one for each moment of the second view, the closest one white
    and the farthest black: aligned views have a white diagonal.
    """
    distance = torch.cdist(*embedding.float())
    chosen = distance.argmin(1)
    near, far = distance.amin(1, keepdim=True), distance.amax(1, keepdim=True)
    strip = ((far - distance) / (far - near).clamp_min(1e-6) * 255).to(torch.uint8)
    grown = F.interpolate(strip[:, None, None].float(), pictures.shape[3:]).to(torch.uint8)  # (K, 1, H, W)
    shown = {"first view": pictures[0], "second view": pictures[1], "closest": pictures[1][chosen]}
    shown["likeness by time"] = grown.expand_as(pictures[0])
    question = "Which moment of the second view is that of the first one? The numbers are times in the clip."
    return Examples(question, shown, [str(t) for t in times[chosen].tolist()], [str(t) for t in times.tolist()])


def imitation_reward(achieved: Tensor, desired: Tensor) -> Tensor:
    """Return -(alpha |v - w|^2 + beta sqrt(gamma + |v - w|^2)), (B,), of embeddings (B, G) (Sermanet et al. 2018,
    section III.C): the square leads from afar, the root makes the last bit exact.
    """
    squared = (achieved - desired).square().sum(1)
    return -(ALPHA * squared + BETA * (GAMMA + squared).sqrt())
