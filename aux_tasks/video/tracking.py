"""Tracked patches: the first and the last patch of a moving object embed alike."""

from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, over_valid
from aux_tasks.parts.clips import camera_path, choose, observations
from aux_tasks.parts.moving_patches import centre_patch, follow_patch, most_moving
from aux_tasks.parts.patches import crop
from aux_tasks.views import choices, spread
from encoders import Encoder
from encoders.augment import random_shift
from harness.checks import check_above, check_least, check_within
from replay import Batch

MIN_MOTION = 4.0  # mean change of a patch, gray levels: less is a still clip
MIN_MATCH = 0.5  # likeness from one frame to the next: less is a lost track, and 0 a flat patch
MAX_ERROR = 2  # pixels from where a track began to where it leads back


class Tracking(AuxTask):
    """Mean over negatives of max(0, D(x, x+) - D(x, x-) + margin) with D = 1 - cos, where x and x+ are the first and
    the last patch of an object tracked through the clip and x- the last patches of other tracks (Wang and Gupta 2015,
    "Unsupervised learning of visual representations using videos").

    The patch that differs most from the rest of its clip is followed from frame to frame by likeness (the paper uses
    SURF and KCF), and back again: a track that does not return to its start has switched objects (Kalal et al. 2010,
    "Forward-backward error"). Negatives are of other clips and drawn at random; after `hard_after` updates a share of
    them are the nearest ones, which from the start, or alone, collapse the features at a loss of `margin`. Still or
    flat clips, lost tracks and clips of a moving camera are left out; `tracked` is the share of the others.

    Patches are centred on their object, resized to the encoder's input, and each is shifted by itself: the tracker
    keeps an object at its position in the patch, which would identify the track. `accuracy` is the share of first
    patches closest to their own last one; `spread` is 1 for features all over the sphere, 0 for equal ones.

    Args:
        setting: the run.
        frames: observations of a track; 30 in the paper.
        stride: from one of them to the next.
        patch_size: side of a patch, pixels; None for a third of the shorter side.
        search: the farthest that a patch is followed in one step, pixels.
        shift: the largest of a patch in the encoder's input, pixels.
        embedding_dim: size of the compared embeddings.
        margin: of the triplet loss.
        negatives: of each track.
        hard_after: updates.
        hard_share: of the negatives, in [0, 1].

    Raises:
        ValueError: an option is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})
    updates: Tensor

    def __init__(
        self,
        setting: TaskSetting,
        *,
        frames: int = 8,
        stride: int = 1,
        patch_size: int | None = None,
        search: int = 6,
        shift: int = 2,
        embedding_dim: int = 128,
        margin: float = 0.5,
        negatives: int = 4,
        hard_after: int = 1000,
        hard_share: float = 0.5,
    ) -> None:
        super().__init__(setting)
        channels, *size = setting.obs_shape
        self.patch_size = min(size) // 3 if patch_size is None else patch_size
        if not 2 <= self.patch_size <= min(size):
            raise ValueError(f"patch_size must be 2 to {min(size)}, got {self.patch_size}")
        check_least(2, frames=frames)
        check_least(1, stride=stride, search=search, embedding_dim=embedding_dim, negatives=negatives)
        check_least(0, shift=shift, hard_after=hard_after)
        check_above(0, margin=margin)
        check_within("[0, 1]", hard_share=hard_share)
        self.frames, self.stride, self.clip_length = frames, stride, (frames - 1) * stride + 1
        self.search, self.shift, self.margin = search, shift, margin
        self.negatives, self.hard, self.hard_after = negatives, round(hard_share * negatives), hard_after
        self.newest = channels // setting.frame_stack  # channels of a frame
        self.embed = nn.Linear(setting.feature_dim, embedding_dim)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the triplet loss (B,)."""
        *pair, valid = self.tracks(batch)
        first, last = (random_shift(patches, self.shift, self.generator) for patches in pair)
        near, similarity = self._similarities(first, last, encoder)
        others = valid[None, :] * (1 - torch.eye(len(valid), device=valid.device))
        chosen = self._choose_negatives(similarity.detach(), others)
        counted = others.gather(1, chosen)
        hinge = (similarity.gather(1, chosen) - similarity.diagonal()[:, None] + self.margin).clamp_min(0)
        loss = (hinge * counted).sum(1) / counted.sum(1).clamp_min(1)
        _, hit = choose(similarity, torch.arange(len(valid), device=valid.device), valid)
        metrics = {
            "accuracy": over_valid(hit, valid).mean(),
            "chance": 1 / valid.sum().clamp_min(1),
            "tracked": valid.mean(),
            "spread": spread(near),
        }
        return AuxOutput(over_valid(loss, valid), metrics)

    def after_step(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Count the update, after enough of which hard negatives are drawn."""
        self.updates += 1

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the first eight patches beside their last ones, and the last ones that are closest."""
        first, last, _ = self.tracks(batch)
        _, similarity = self._similarities(first, last, encoder)
        return choices("first patch", "last patch", torch.cat([first, last]).round(), similarity[:8].argmax(1))

    @torch.no_grad()
    def tracks(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Return first and last patch (B, C, H, W) in [0, 255], resized, and 1 in (B,) where they are a track."""
        clip, inside = observations(batch, self.frames, self.stride)
        frames = clip[:, :, -self.newest :].float().mean(2)  # (B, T, H, W)
        corner, motion = most_moving(frames, self.patch_size)
        start = centre_patch(frames[:, 0], corner, self.patch_size)
        end, match = self._follow(frames, start)
        back, _ = self._follow(frames.flip(1), end)
        same = (back - start).abs().amax(1) <= MAX_ERROR
        still = (camera_path(frames) == 0).all((1, 2))
        valid = inside[:, -1] * still * (motion >= MIN_MOTION) * (match >= MIN_MATCH) * same
        size = (self.patch_size, self.patch_size)
        patches = [crop(clip[:, t], at, size).float() for t, at in ((0, start), (-1, end))]
        first, last = (F.interpolate(patch, clip.shape[-2:], mode="bilinear") for patch in patches)
        return first, last, valid

    def _follow(self, frames: Tensor, corner: Tensor) -> tuple[Tensor, Tensor]:
        """Follow the patch at `corner` (B, 2) through frames (B, T, H, W); return its last corner and worst match."""
        matches = []
        for before, after in pairwise(frames.unbind(1)):
            corner, match = follow_patch(before, after, corner, self.patch_size, self.search)
            matches.append(match)
        return corner, torch.stack(matches).amin(0)

    def _choose_negatives(self, similarity: Tensor, others: Tensor) -> Tensor:
        """Return K columns of each row of (B, B), those with 1 in `others` first: hard ones, then random ones."""
        count = min(self.negatives, len(others))
        hard = min(self.hard, count)
        noise = torch.rand(similarity.shape, generator=self.generator, device=similarity.device)
        noise = noise.masked_fill(others == 0, -2)
        rank = torch.where(self.updates >= self.hard_after, similarity.masked_fill(others == 0, -2), noise)
        nearest = rank.topk(hard, dim=1).indices
        return torch.cat([nearest, noise.scatter(1, nearest, -3).topk(count - hard, dim=1).indices], dim=1)

    def _similarities(self, first: Tensor, last: Tensor, encoder: Encoder) -> tuple[Tensor, Tensor]:
        """Return embeddings (2 B, D) of unit length, and the cosines (B, B) of first with last ones."""
        embedded = F.normalize(self.embed(encoder(torch.cat([first, last]))).float())
        x, y = embedded.chunk(2)
        return embedded, x @ y.T
