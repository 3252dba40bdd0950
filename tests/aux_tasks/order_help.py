"""Clips, a quick encoder and a learning check for tests of the tasks on the order of frames."""

import torch
import torch.nn.functional as F
from aux_help import generator, noise
from pretext_help import balls, build_task, clips_of, cut, measure, train_on
from torch import Tensor, nn

from encoders import Encoder

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


def still(clip: Tensor) -> Tensor:
    """The first frame for ever."""
    return clip[:, :1].expand_as(clip).contiguous()


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


def learned(
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
