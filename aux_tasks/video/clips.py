"""What the objectives on clips share: observations of one episode, and a choice among those of the batch."""

import torch
from torch import Tensor

from replay import Batch

EXCLUDED = -1e9  # logit of what is no candidate: finite, so that a row without any stays finite too


def observations(batch: Batch, length: int, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Every `stride`-th of the clip, (B, length, C, H, W), and 1 in (B, length) for those of the first's episode."""
    clip, mask = batch.clip, batch.clip_mask
    assert clip is not None
    assert mask is not None
    reach = (length - 1) * stride + 1
    assert clip.shape[1] >= reach, f"expected clips of at least {reach} observations, got {clip.shape[1]}"
    valid = torch.cat([torch.ones_like(mask[:, :1]), mask.cumprod(1)], dim=1)
    return clip[:, :reach:stride], valid[:, :reach:stride]


def choose(logits: Tensor, own: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """InfoNCE (..., N) of (..., N, M) logits, and 1 where the choice is right.

    Args:
        logits: of N questions, over M candidates.
        own: (N,) index of the right candidate.
        valid: (M,) 0 for what is no candidate; questions whose own is none mean nothing.
    """
    logits = logits.float().masked_fill(valid == 0, EXCLUDED)
    right = own.expand(logits.shape[:-1])
    loss = -logits.log_softmax(-1).gather(-1, right[..., None]).squeeze(-1)
    return loss, (logits.detach().argmax(-1) == right).float()
