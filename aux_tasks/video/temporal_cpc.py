"""Contrastive predictive coding along time: which observation of the batch comes k steps later?"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, over_valid
from aux_tasks.parts.clips import choose, exclude, observations
from encoders import Encoder
from harness.checks import check_least
from replay import Batch


class TemporalCPC(AuxTask):
    """-log softmax_j(z_j^T W_k c_t) at j = t + k, mean over steps k = 1..K and times t, where c_t is the state of a GRU
    over z_0 .. z_t and j runs over every observation of every clip of the batch (van den Oord et al. 2018,
    "Representation learning with contrastive predictive coding", equation 4).

    The clip's own other moments are among the candidates, so that recognising a clip does not suffice; observations are
    a frame stack apart by default, so that no frame is on both sides; without batch statistics nothing tells who shares
    a batch. Observations behind the end of an episode are neither asked for nor candidates. Chance is one over the
    number of candidates; `accuracy` is bounded by moments that look alike.

    Args:
        setting: the run.
        frames: T, observations of a clip that are read.
        horizon: K, less than T.
        hidden: width of the GRU.
        stride: steps between observations read; None for `frame_stack`.

    Raises:
        ValueError: `horizon` is not in [1, frames), or `stride` or `hidden` is less than 1.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})

    def __init__(
        self, setting: TaskSetting, *, frames: int = 8, horizon: int = 4, hidden: int = 256, stride: int | None = None
    ) -> None:
        super().__init__(setting)
        stride = setting.frame_stack if stride is None else stride
        if not 1 <= horizon < frames:
            raise ValueError(f"horizon must be at least 1 and less than frames={frames}, got {horizon}")
        check_least(1, stride=stride, hidden=hidden)
        self.frames, self.stride = frames, stride
        self.clip_length = (frames - 1) * stride + 1
        self.context = nn.GRU(setting.feature_dim, hidden, batch_first=True)
        self.predictors = nn.ModuleList(nn.Linear(hidden, setting.feature_dim, bias=False) for _ in range(horizon))

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return InfoNCE (B,), mean over the predictions of a clip."""
        clip, valid = observations(batch, self.frames, self.stride)
        latent = encoder(clip.flatten(0, 1)).float()
        predicted = self.predictions(latent.unflatten(0, valid.shape))
        index = torch.arange(valid.numel(), device=valid.device).view_as(valid)
        own = torch.cat([index[:, k:] for k in range(1, len(self.predictors) + 1)], dim=1)  # (B, N)
        loss, hit = choose(predicted.flatten(0, 1) @ latent.T, own.flatten(), valid.flatten())
        asked = valid.flatten()[own]
        loss, hit = (over_valid(term.view_as(asked), asked).sum(1) for term in (loss, hit))
        return AuxOutput(loss, {"accuracy": hit.mean(), "chance": 1 / valid.sum()})

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return four clips up to the last context, then what it chose and what came, named `clip:time`."""
        clip, valid = observations(batch, self.frames, self.stride)
        latent = encoder(clip.flatten(0, 1)).float()
        predicted = self.predictions(latent.unflatten(0, valid.shape))[:4, -1]
        chosen = exclude(predicted @ latent.T, valid.flatten()).argmax(1)
        seen = clip[:4, : self.frames - len(self.predictors)]
        shown = {f"t={t}": pixels for t, pixels in enumerate(seen.unbind(1))}
        shown |= {f"t={self.frames - 1}": clip[:4, -1], "predicted": clip.flatten(0, 1)[chosen]}
        said = [f"{i // self.frames}:{i % self.frames}" for i in chosen.tolist()]
        right = [f"{i}:{self.frames - 1}" for i in range(len(said))]
        question = f"Which observation of the batch comes at t={self.frames - 1}? Answers are clip:t."
        return Examples(question, shown, said, right)

    def predictions(self, latent: Tensor) -> Tensor:
        """Return W_k c_t (B, N, Z) from latents (B, T, Z): t = 0 .. T - 1 - k for k = 1, then for k = 2, to K."""
        context, _ = self.context(latent)
        return torch.cat([w(context[:, :-k]) for k, w in enumerate(self.predictors, 1)], dim=1)
