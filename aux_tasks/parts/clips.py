"""Functions that the tasks on clips share: observations of one episode, times, camera motion, choices, scores."""

import torch
import torch.nn.functional as F
from torch import Tensor

from aux_tasks.base import AuxOutput, over_valid
from replay import Batch

EPS = 1e-5  # of a variance
CAMERA = 1 / 3  # share of the pixels that a shift has to bring closer, or only a thing moved
NOTICED = 2  # gray levels of a pixel
EXCLUDED = -1e9  # logit of what is no candidate: finite, so that a row without any stays finite too


def observations(batch: Batch, length: int, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Return every `stride`-th observation (B, length, C, H, W), and 1 in (B, length) for the first's episode."""
    clip, mask = batch.clip, batch.clip_mask
    assert clip is not None
    assert mask is not None
    reach = (length - 1) * stride + 1
    assert clip.shape[1] >= reach, f"expected clips of at least {reach} observations, got {clip.shape[1]}"
    valid = torch.cat([torch.ones_like(mask[:, :1]), mask.cumprod(1)], dim=1)
    return clip[:, :reach:stride], valid[:, :reach:stride]


def draw_times(size: int, count: int, length: int, gap: int, generator: torch.Generator) -> Tensor:
    """Draw rising times (size, count) in [0, length), at least `gap` apart; all choices are equally likely."""
    free = length - (count - 1) * (gap - 1)
    chosen = torch.rand(size, free, generator=generator, device=generator.device).argsort(1)[:, :count]
    return chosen.sort(1).values + (gap - 1) * torch.arange(count, device=chosen.device)


def at_times(clip: Tensor, times: Tensor) -> Tensor:
    """Return the values (B, *, ...) of clips (B, T, ...) at times (B, *)."""
    sample = torch.arange(len(clip), device=clip.device)
    return clip[sample.view(-1, *[1] * (times.dim() - 1)), times]


def change(clip: Tensor, stride: int = 1) -> Tensor:
    """Return the mean absolute change (B, T - stride), gray levels, of observations (B, T, C, H, W)."""
    clip = clip.float()
    return (clip[:, stride:] - clip[:, :-stride]).abs().mean((2, 3, 4))


def camera_path(frames: Tensor) -> Tensor:
    """Return how far the whole picture has moved since the first of frames (B, T, H, W): rows and columns (B, T, 2).

    Phase correlation of neighbours (Kuglin and Hines 1975) by whole pixels, at most a quarter of the sides. It also
    finds things that move before a plain ground, so a shift counts only where it explains much of the picture.
    """
    sides = frames.shape[2:]
    rows, columns = (torch.hann_window(side, device=frames.device) for side in sides)
    frames = frames.float()
    centred = frames - frames.mean((2, 3), keepdim=True)
    spectrum = torch.fft.rfft2(centred * rows[:, None] * columns)
    cross = spectrum[:, 1:] * spectrum[:, :-1].conj()
    likeness = torch.fft.irfft2(cross / cross.abs().clamp_min(EPS), s=sides)
    peak = likeness.flatten(2).argmax(2)
    positions = peak // sides[1], peak % sides[1]
    down, right = ((at + side // 2) % side - side // 2 for at, side in zip(positions, sides, strict=True))
    (row, inside), (column, within) = _moved(down, sides[0]), _moved(right, sides[1])
    seen = inside[..., None] & within[:, :, None]
    before, after = frames[:, :-1], frames[:, 1:]
    follow = after.gather(2, row[..., None].expand_as(after)).gather(3, column[:, :, None].expand_as(after))
    gained = (after - before).abs() - (follow - before).abs()
    closer = ((gained > NOTICED).float() - (gained < -NOTICED).float()) * seen
    near = (down.abs() <= sides[0] // 4) & (right.abs() <= sides[1] // 4)
    believed = near & (closer.sum((2, 3)) > CAMERA * seen.sum((2, 3)))
    return F.pad((torch.stack([down, right], dim=2) * believed[..., None]).cumsum(1), (0, 0, 1, 0))


def _moved(step: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return where `step` (...) moves the pixels of an axis (..., size), and whether they are still in the picture."""
    position = torch.arange(size, device=step.device) + step[..., None]
    return position.clamp(0, size - 1), (position >= 0) & (position < size)


def score(loss: Tensor, hits: Tensor, valid: Tensor, chance: float) -> AuxOutput:
    """Return losses (B,) and accuracy, the mean of hits (B,) in [0, 1], of the valid clips (B,) alone.

    Without any, the accuracy is that of chance. `valid` is their share.
    """
    guess = torch.full_like(hits[0], chance)
    accuracy = torch.where(valid.any(), over_valid(hits, valid).mean(), guess)
    return AuxOutput(over_valid(loss, valid), {"accuracy": accuracy, "chance": guess, "valid": valid.float().mean()})


def choose(logits: Tensor, own: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Return InfoNCE (..., N) of (..., N, M) logits, and 1 where the choice is right.

    Args:
        logits: of N questions, over M candidates.
        own: (N,) index of the right candidate.
        valid: (M,) 0 for what is no candidate; questions whose own is none mean nothing.
    """
    logits = exclude(logits, valid)
    right = own.expand(logits.shape[:-1])
    loss = -logits.log_softmax(-1).gather(-1, right[..., None]).squeeze(-1)
    return loss, (logits.detach().argmax(-1) == right).float()


def exclude(logits: Tensor, valid: Tensor) -> Tensor:
    """Return float32 logits (..., M) in which no candidate with valid (M,) 0 is ever chosen."""
    return logits.float().masked_fill(valid == 0, EXCLUDED)


def contrast(features: Tensor, valid: Tensor) -> Tensor:
    """Standardise features (B, T, F), or maps (B, T, C, H, W) by channel, over all of the valid clips (B,).

    What all have in common, such as a background, tells nothing of time, and is most of them: Adam's steps along it
    silence the units before the little that moves is found.
    """
    features, clips = features.float(), valid.float().view(-1, *[1] * (features.dim() - 1))
    others = [axis for axis in range(features.dim()) if axis != 2]

    def mean(values: Tensor) -> Tensor:
        return (values.mean(others[1:], keepdim=True) * clips).sum(0, keepdim=True) / clips.sum().clamp_min(1)

    centred = features - mean(features)
    return centred * (mean(centred.square()) + EPS).rsqrt()
