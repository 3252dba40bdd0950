"""Arrow of time: does the clip run forwards or backwards?"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from aux_tasks.base import AuxOutput, AuxTask, Examples, TaskSetting, classify
from aux_tasks.parts.clips import camera_path, change, contrast, observations, score
from encoders import Encoder
from harness.checks import check_least
from replay import Batch

NAMES = ("forwards", "backwards")


class ArrowOfTime(AuxTask):
    """Whether a clip runs forwards or backwards, asked of each clip in both directions; 0.5 by chance (Wei et al. 2018,
    "Learning and using the arrow of time").

    As in their temporal class-activation map network, the feature maps of some observations, standardised by
    `contrast`, are concatenated over time, go through convolutions and are pooled to the logits. The paper's network
    reads optical flow, the encoder here the frames. Backwards, observations are in reverse order and so are the frames
    in their stacks.

    Guards against cues other than motion: the border is replaced by the pixels beside it; camera motion is undone, by
    whole pixels (a homography in the paper); the clip is shifted as a whole to put the centre of its motion into the
    middle. Clips that their episode does not fill, or in which hardly anything moves inside the border, are left out. A
    score display further inside is not hidden.

    Args:
        setting: the run.
        groups: observations that are read of a clip.
        stride: from one of them to the next.
        border: pixels at each edge that are hidden.
        centre: move the centre of motion to the middle.
        motion_floor: the least mean change of a pixel, in gray levels a group.
        hidden: channels of the head.

    Raises:
        ValueError: an option is out of range, or the border leaves nothing.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"clip", "clip_mask"})

    def __init__(
        self,
        setting: TaskSetting,
        *,
        groups: int = 6,
        stride: int = 3,
        border: int = 2,
        centre: bool = True,
        motion_floor: float = 0.05,
        hidden: int = 64,
    ) -> None:
        super().__init__(setting)
        check_least(2, groups=groups)
        check_least(1, stride=stride, hidden=hidden)
        check_least(0, border=border, motion_floor=motion_floor)
        if 2 * border >= min(setting.obs_shape[1:]):
            raise ValueError(f"border={border} leaves nothing of observations of shape {setting.obs_shape}")
        self.frame_stack, self.groups, self.stride = setting.frame_stack, groups, stride
        self.clip_length = (groups - 1) * stride + 1
        self.border, self.centre, self.motion_floor = border, centre, motion_floor
        self.head = nn.Sequential(
            nn.Conv2d(groups * setting.map_shape[0], hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(hidden, 2),
        )

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the cross-entropy (B,), the mean of both directions."""
        clip, inside = observations(batch, self.groups, self.stride)
        forwards = self.prepare(clip)
        valid = (inside[:, -1] > 0) & (change(forwards).mean(1) >= self.motion_floor)
        logits = self._logits(torch.cat([forwards, reverse(forwards, self.frame_stack)]), valid.repeat(2), encoder)
        label = torch.arange(2, device=clip.device).repeat_interleave(len(clip))
        loss = classify(logits, label).loss.view(2, -1).mean(0)
        hits = (logits.argmax(1) == label).float().view(2, -1).mean(0)
        return score(loss, hits, valid, 0.5)

    def prepare(self, clip: Tensor) -> Tensor:
        """Return clips (B, G, C, H, W) with the camera held still, the border hidden and the motion in the middle.

        They show what stays in sight; its edges repeat where that leaves gaps.
        """
        sides, edge = clip.shape[3:], self.border
        grids = [torch.arange(side, device=clip.device) for side in sides]
        frames = clip.reshape(len(clip), clip.shape[1] * self.frame_stack, -1, *sides)
        path = camera_path(frames.float().mean(2)).unbind(2)
        scene = [  # (B, H) rows and (B, W) columns of the first frame that all frames have
            grid.clamp(edge - way.amin(1, keepdim=True), len(grid) - 1 - edge - way.amax(1, keepdim=True))
            for grid, way in zip(grids, path, strict=True)
        ]
        held = [position[:, None] + way[:, :, None] for position, way in zip(scene, path, strict=True)]
        clip = _pick(frames, *held).view_as(clip)
        rows, columns = inside = [grid == position for grid, position in zip(grids, scene, strict=True)]
        moved = clip.float().diff(dim=1).abs().sum((1, 2)) * rows[:, :, None] * columns[:, None]
        shown = []
        for axis, (grid, position) in enumerate(zip(grids, scene, strict=True)):
            weight = (moved.sum(2 - axis) + 1e-6) * inside[axis]  # the middle of a still clip is that of the scene
            middle = (weight * grid).sum(1) / weight.sum(1).clamp_min(1e-6)
            shift = (middle - (len(grid) - 1) / 2).round().long() * self.centre
            shown.append(position.gather(1, (grid + shift[:, None]).clamp(0, len(grid) - 1))[:, None])
        return _pick(clip, *shown)

    @torch.no_grad()
    def examples(self, batch: Batch, encoder: Encoder) -> Examples:
        """Return eight clips, every other one backwards, the observations side by side."""
        clip = self.prepare(observations(batch, self.groups, self.stride)[0][:8])
        label = torch.arange(len(clip), device=clip.device) % 2
        clip = torch.where(label.view(-1, 1, 1, 1, 1) == 1, reverse(clip, self.frame_stack), clip)
        said = self._logits(clip, torch.ones_like(label), encoder).argmax(1)
        shown = {f"moment {t + 1}": pixels for t, pixels in enumerate(clip.unbind(1))}
        right = [NAMES[i] for i in label.tolist()]
        return Examples("Does the clip run forwards or backwards?", shown, [NAMES[i] for i in said.tolist()], right)

    def _logits(self, clip: Tensor, valid: Tensor, encoder: Encoder) -> Tensor:
        maps = encoder.maps(clip.flatten(0, 1))
        return self.head(contrast(maps.view(len(clip), -1, *maps.shape[1:]), valid).flatten(1, 2))  # type: ignore[no-any-return]


def _pick(frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Gather rows (B, T or 1, H) and columns (B, T or 1, W) of frames (B, T, C, H, W); outside counts as the border."""
    rows, columns = rows.clamp(0, frames.shape[3] - 1), columns.clamp(0, frames.shape[4] - 1)
    frames = frames.gather(3, rows[:, :, None, :, None].expand_as(frames))
    return frames.gather(4, columns[:, :, None, None].expand_as(frames))


def reverse(clip: Tensor, frame_stack: int) -> Tensor:
    """Reverse clips (B, T, C, H, W) in time, and with them the frames of each stack, but not their channels."""
    size, length, _, height, width = clip.shape
    return clip.reshape(size, length, frame_stack, -1, height, width).flip(1, 2).flatten(2, 3)
