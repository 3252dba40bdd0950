"""Spatiotemporal deep infomax: which observation of the batch comes next, told position by position."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, over_valid
from aux_tasks.parts.clips import choose, exclude, observations
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class STDIM(AuxTask):
    """Two InfoNCE losses, of the whole and of each position with the same position of the next observation, mean over
    positions: -log softmax_j(z_i^T W_g m_j[p]) - log softmax_j(n_i[p]^T W_l m_j[p]) at j = i, where n are the encoder's
    maps of x_t and m those of x_t+1 (Anand et al. 2019, "Unsupervised state representation learning in Atari").

    The local features are `encoder.maps`, the last convolution. Each position is a choice of its own, so that the loss
    asks for what happens everywhere, not for the easiest thing in the picture.
    Observations are a frame stack apart by default, so that no frame is on both sides; in a clip that stands still, the
    local term is solved by any encoder. Chance is one over the number of clips; positions that look alike in all of
    them bound the accuracy.

    Args:
        setting: the run.
        stride: steps from x_t to x_t+1; None for `frame_stack`.

    Raises:
        ValueError: `stride` is less than 1.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})

    def __init__(self, setting: TaskSetting, *, stride: int | None = None) -> None:
        super().__init__(setting)
        self.stride = setting.frame_stack if stride is None else stride
        check_least(1, stride=self.stride)
        self.clip_length = self.stride + 1
        channels = setting.map_shape[0]
        self.whole = nn.Linear(setting.feature_dim, channels, bias=False)
        self.local = nn.Linear(channels, channels, bias=False)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the sum of the two terms (B,)."""
        clip, valid = observations(batch, 2, self.stride)
        valid = valid[:, 1]
        logits = self._logits(clip, encoder)
        loss, hit = choose(logits.flatten(1, 2), torch.arange(len(clip), device=valid.device), valid)  # (2, P, B)
        right = over_valid(hit.mean(1), valid).mean(1)
        return AuxOutput(
            over_valid(loss.mean(1).sum(0), valid),
            {
                "accuracy": right.mean(),
                "accuracy_global": right[0],
                "accuracy_local": right[1],
                "chance": 1 / valid.sum().clamp_min(1),
            },
        )

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return three observations, the next one as the positions chose it, by either term, and the true next one."""
        clip, valid = observations(batch, 2, self.stride)
        now, later = clip.unbind(1)
        chosen = exclude(self._logits(clip, encoder), valid[:, 1]).argmax(-1).movedim(-1, 1)[:, :3]  # (2, 3, H', W')
        chosen = F.interpolate(chosen.float(), later.shape[2:]).long()[:, :, None]  # of each pixel
        whole, local = later.gather(0, chosen.expand(-1, -1, *later.shape[1:]).flatten(0, 1)).chunk(2)
        shown = {"now": now[:3], "next, by the whole": whole, "next, by positions": local, "next": later[:3]}
        question = "What comes next? Each position was chosen from the batch alone, by the whole picture or by itself."
        return Examples(question, shown)

    def _logits(self, clip: Tensor, encoder: Encoder) -> Tensor:
        """Return logits (2, H', W', B, B) of both terms at each position: clip i for the next observation of clip j."""
        maps = encoder.maps(clip.transpose(0, 1).flatten(0, 1))
        now, later = maps.flatten(2).mT.chunk(2)  # (B, P, C')
        whole = self.whole(encoder.features(maps[: len(now)]))
        query = torch.stack([whole[:, None].expand_as(now), self.local(now)])
        return torch.einsum("qipc,jpc->qpij", query, later).view(2, *maps.shape[2:], len(now), -1)
