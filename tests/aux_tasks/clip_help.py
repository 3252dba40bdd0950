"""Clips, whole and with destroyed content, and trainings short enough for a fast test."""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from aux_help import generator, noise
from pretext_help import balls, build_task, clips_of, cut, measure, train_on
from torch import Tensor, nn

from aux_tasks import AuxTask
from encoders import Encoder


def patch_encoder(shape: tuple[int, int, int]) -> Encoder:
    """Cells of 4 x 4 pixels and a look at their neighbours: learns within a second of one core."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(shape[0], 16, 4, stride=4), nn.ReLU(), nn.Conv2d(16, 24, 3, padding=1), nn.ReLU()]
    return Encoder(nn.Sequential(*layers), nn.LazyLinear(32), shape)


HUES = np.array([(0.587, -0.299, 0), (-0.587, 0.299, 0), (0, 0.114, -0.587), (0, -0.114, 0.587)]) * 130  # luma 0


@cache
def squares(batch: int, length: int, seed: int, count: int = 1, isoluminant: bool = False) -> Tensor:
    """(B, T, 3, 24, 24) uint8: squares of 8 pixels that move by 4 and turn at the border.

    They differ in luma within a clip, and luma does not tell the hue; `isoluminant`: all have that of the gray ground.
    """
    rng = np.random.default_rng(seed)
    turn = 16
    begin = rng.integers(turn // 4 + 1, size=(batch, 1, count, 2)) * 4
    speed = rng.choice((-4, 4), (batch, 1, count, 2)) * np.where(rng.random((batch, 1, count, 1)) < 0.5, (1, 0), (1, 1))
    place = turn - np.abs((begin + speed * np.arange(length)[:, None, None]) % (2 * turn) - turn)
    brightness = rng.permuted(np.tile(np.linspace(90, 165, count + 1)[:count], (batch, 1)), axis=1)
    brightness = brightness + rng.uniform(0, 75 / (count + 1), (batch, count))
    ground = 120 if isoluminant else 40
    hue = HUES[rng.integers(len(HUES), size=(batch, count))]
    colour = hue + (ground if isoluminant else brightness[..., None])
    clip = np.full((batch, length, 3, 24, 24), ground, np.uint8)
    for i, t, n in np.ndindex(batch, length, count):
        y, x = place[i, t, n]
        clip[i, t, :, y : y + 8, x : x + 8] = colour[i, n][:, None, None]
    return torch.from_numpy(clip)


def frames_shuffled(clip: Tensor, seed: int = 0) -> Tensor:
    """Destroyed content: every frame in the place of another one of the batch."""
    frames = clip.flatten(0, 1)
    return frames[torch.randperm(len(frames), generator=generator(seed))].view_as(clip)


def still(clip: Tensor) -> Tensor:
    """Destroyed content: nothing moves."""
    return clip[:, :1].expand_as(clip).contiguous()


def flat(clip: Tensor) -> Tensor:
    """Destroyed content: nothing to see."""
    return torch.full_like(clip, 90)


def learned(
    name: str,
    clips: Callable[[int, int], Tensor],
    destroy: Callable[[Tensor], Tensor] = lambda clip: clip,
    *,
    steps: int,
    frozen: bool = False,
    **options: object,
) -> dict[str, float]:
    """Held-out metrics after a short training on `clips(number, seed)`; `frozen`: no gradient moves anything."""
    task, encoder = trained(name, destroy(clips(256, 1)), steps=0 if frozen else steps, **options)
    return measure(task, cut(encoder), clips_of(destroy(clips(64, 2))), draws=2)


def trained(name: str, clip: Tensor, *, steps: int, **options: object) -> tuple[AuxTask, Encoder]:
    """Task and encoder after `steps` batches of 16 of the clips."""
    encoder = patch_encoder(tuple(clip.shape[2:]))
    task, draw = build_task(name, encoder, **options), generator(3)
    batches = (clips_of(clip[torch.randint(len(clip), (16,), generator=draw)]) for _ in range(steps))
    train_on(task, encoder, lambda _: next(batches), steps=steps, lr=5e-3)
    return task, encoder


# --- the order of frames ---

SIZE = 20


def noise_clip(batch: int, length: int, channels: int = 1, size: int = 12, seed: int = 0) -> Tensor:
    """Frames of which no two are alike."""
    return noise(batch * length, channels, size, size, seed=seed).view(batch, length, channels, size, size)


def stacked(clip: Tensor, frame_stack: int) -> Tensor:
    """The clip (B, T, C, H, W) as observations of `frame_stack` frames, shorter by as many less one."""
    last = clip.shape[1] - frame_stack + 1
    return torch.cat([clip[:, k : last + k] for k in range(frame_stack)], dim=2)


def panned(batch: int, noise_level: float = 0.0, seed: int = 0, speed: tuple[int, int] = (0, 2)) -> Tensor:
    """(B, 3, 1, 20, 20): a camera goes over smooth texture, by (rows, columns) a frame, with noise in each frame."""
    rng, (down, right) = generator(seed), speed
    texture = F.avg_pool2d(torch.rand(batch, 1, SIZE + 2 + 2 * down, SIZE + 2 + 2 * right, generator=rng), 3, 1)
    places = [(down * t, right * t) for t in range(3)]
    clip = torch.stack([texture[..., y : y + SIZE, x : x + SIZE] for y, x in places], dim=1) * 600 - 170
    return (clip + noise_level * torch.randn(clip.shape, generator=rng)).clamp(0, 255).to(torch.uint8)


def out_of_order(clip: Tensor, seed: int = 0) -> Tensor:
    """The same frames, each clip in a random order."""
    order = torch.rand(clip.shape[:2], generator=generator(seed)).argsort(1)
    return clip[torch.arange(len(clip))[:, None], order]


def broken(clip: Tensor, sample: int, at: int):
    """A batch of whole clips, but for one whose episode ends before observation `at`."""
    batch = clips_of(clip)
    batch.clip_mask[sample, at - 1 :] = 0
    return batch


def quick_encoder(frame_stack: int = 1, maps: int = 16) -> Encoder:
    """Eight features, too few to hold what a task needs unless they are learned."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(frame_stack, 16, 6, 3), nn.ReLU(), nn.Conv2d(16, maps, 3), nn.ReLU())
    return Encoder(trunk, nn.LazyLinear(8), (frame_stack, SIZE, SIZE))


def order_learned(
    name: str, destroy=lambda clip: clip, *, steps: int, frame_stack: int = 1, maps: int = 16, frozen=False, **options
) -> float:
    """Accuracy on held-out balls after training on 256 others, with a `frozen` encoder the head alone."""
    encoder = quick_encoder(frame_stack, maps)
    task = build_task(name, encoder, frame_stack, **options)
    if frozen:
        cut(encoder)
    length = task.clip_length + frame_stack - 1
    clips = stacked(destroy(balls(256, length, SIZE)), frame_stack)
    order = generator(3)
    train_on(task, encoder, lambda _: clips_of(clips[torch.randperm(256, generator=order)[:32]]), steps=steps, lr=6e-3)
    return measure(task, encoder, clips_of(stacked(destroy(balls(256, length, SIZE, seed=9)), frame_stack)))["accuracy"]
