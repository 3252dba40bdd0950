"""Odd one out: which of a few sub-clips is in the wrong order?"""

from math import factorial
from typing import ClassVar

import torch
from torch import Tensor

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from aux_tasks.parts.clips import at_times, change, draw_times, observations, score
from aux_tasks.parts.mlp import mlp
from encoders import Encoder
from harness.checks import check_least
from replay import Batch

MOST_FRAMES = 20  # whose orders can be numbered in 64 bits


class OddOneOut(AuxTask):
    """Cross-entropy over N + 1 sub-clips of one clip, N in their order and one in another (Fernando et al. 2017,
    "Self-supervised video representation learning with odd-one-out networks"). Chance is 1 / (N + 1).

    The encoder reads a sub-clip as one observation. Where that is a stack of three frames or more, the sub-clip is its
    frames. Otherwise it is their sum weighted 1 - W, 3 - W, ..., W - 1, which is the sum of all differences of a later
    and an earlier frame, on medium gray: unlike the sum of neighbours' differences it does not cancel out.

    The odd order is neither the original nor its reverse. Sub-clips begin at different times, because the odd one has
    no double; clips that their episode does not fill, or where a sub-clip hardly moves, are left out. The head scores
    each sub-clip beside the mean of the others, so that their positions do not matter:

        score_i = head(v_i, mean_{j != i} v_j)

    Args:
        setting: the run.
        sub_clips: N + 1; the paper's are 6.
        frames: W, of a sub-clip; only where `frame_stack` is 1 or 2.
        stride: observations from one frame of a sub-clip to the next.
        clip_length: observations that the sub-clips are drawn from.
        motion_floor: the least mean change of a pixel in each sub-clip, in gray levels a step.
        hidden: width of the head's hidden layer.

    Raises:
        ValueError: an option is out of range, or the sub-clips do not fit into the clip.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        sub_clips: int = 4,
        frames: int = 4,
        stride: int = 1,
        clip_length: int = 16,
        motion_floor: float = 0.05,
        hidden: int = 256,
    ) -> None:
        super().__init__(setting)
        self.frame_stack = setting.frame_stack
        self.frames = frames if setting.frame_stack < 3 else setting.frame_stack
        check_least(3, sub_clips=sub_clips, frames=frames)
        check_least(1, stride=stride)
        check_least(0, motion_floor=motion_floor)
        if self.frames > MOST_FRAMES:
            raise ValueError(f"a sub-clip must have at most {MOST_FRAMES} frames, got {self.frames}")
        needed = (self.frames - 1) * stride + sub_clips
        if clip_length < needed:
            raise ValueError(
                f"{sub_clips} sub-clips of {self.frames} frames need clip_length={needed}, got {clip_length}"
            )
        self.sub_clips, self.stride, self.clip_length, self.motion_floor = sub_clips, stride, clip_length, motion_floor
        self.head = mlp(2 * setting.feature_dim, hidden, 1)

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the cross-entropy (B,) with the position of the odd one."""
        clip, inside = observations(batch, self.clip_length)
        inputs, label, motion = self.draw(clip)
        logits = self._scores(inputs, encoder)
        valid = (inside[:, -1] > 0) & (motion >= self.motion_floor)
        hits = (logits.argmax(1) == label).float()
        return score(classify(logits, label).loss, hits, valid, 1 / self.sub_clips)

    def draw(self, clip: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Draw sub-clips (B, N + 1, C, H, W) of clips (B, T, C, H, W), the odd one's position and the least motion."""
        size, device = len(clip), clip.device
        if self.frame_stack > 2:
            clip = clip[:, :, -(clip.shape[2] // self.frame_stack) :]  # the newest frames
        span = self.stride * torch.arange(self.frames, device=device)
        room = self.clip_length - self.stride * (self.frames - 1)
        times = draw_times(size, self.sub_clips, room, 1, self.generator)[:, :, None] + span
        motion = at_times(change(clip, self.stride), times[:, :, :-1]).mean(2).amin(1)
        label = torch.randint(self.sub_clips, (size,), generator=self.generator, device=device)
        odd = torch.arange(self.sub_clips, device=device) == label[:, None]
        order = torch.where(
            odd[:, :, None], odd_orders(size, self.frames, self.generator)[:, None], span // self.stride
        )
        parts = at_times(clip, times.gather(2, order))  # (B, N + 1, W, C, H, W)
        return (parts.flatten(2, 3) if self.frame_stack > 2 else weighted_sum(parts)), label, motion

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return the sub-clips of the first eight clips; the answers are positions, from 0."""
        inputs, label, _ = self.draw(observations(batch, self.clip_length)[0][:8])
        said = self._scores(inputs, encoder).argmax(1)
        shown = {str(i): sub_clip for i, sub_clip in enumerate(inputs.unbind(1))}
        summed = "" if self.frame_stack > 2 else " Each is shown as the sum of the differences of its frames."
        question = f"Which sub-clip has its frames in a wrong order?{summed}"
        return Examples(question, shown, [str(i) for i in said.tolist()], [str(i) for i in label.tolist()])

    def _scores(self, inputs: Tensor, encoder: Encoder) -> Tensor:
        """Return scores (B, N + 1) of sub-clips (B, N + 1, C, H, W)."""
        features = encoder(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
        others = (features.sum(1, keepdim=True) - features) / (self.sub_clips - 1)
        return self.head(torch.cat([features, others], dim=2)).squeeze(2)  # type: ignore[no-any-return]


def odd_orders(size: int, frames: int, generator: torch.Generator) -> Tensor:
    """Draw orders (size, frames), neither rising nor falling; all others are equally likely.

    The rising order is the first in the lexicographic list of all, the falling one the last: a number between them is
    drawn, and its digits in the factorial number system (Lehmer code) give the order.
    """
    rank = torch.randint(1, factorial(frames) - 1, (size,), generator=generator, device=generator.device)
    order = torch.zeros(size, 0, dtype=torch.long, device=rank.device)
    for position in reversed(range(frames)):  # the digit is the rank of a frame among those behind it
        digit = (rank // factorial(frames - 1 - position) % (frames - position))[:, None]
        order = torch.cat([digit, order + (order >= digit)], dim=1)
    return order


def weighted_sum(frames: Tensor) -> Tensor:
    """Return the sum of all later minus earlier frames (..., W, C, H, W) as uint8 (..., C, H, W), 0 as gray."""
    count = frames.shape[-4]
    weights = 2.0 * torch.arange(count, device=frames.device) - (count - 1)
    total = torch.einsum("...wchx,w->...chx", frames.float(), weights / weights.abs().sum())
    return (total + 127.5).round().to(torch.uint8)
