"""Images, clips and a plain training loop for tests of the tasks on images and clips."""

from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from aux_help import batch_of, generator
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor, nn

from aux_tasks import TASKS, AuxOutput, AuxTask, TaskSetting
from aux_tasks.suite import ADVERSARY_LEARNING_RATE, GAME_BETAS, head_group
from encoders import Encoder, EncoderConfig, build_encoder
from replay import Batch


@cache
def digits(begin: int, end: int, size: int = 28) -> Tensor:
    """(N, 1, size, size) uint8: handwritten digits of scikit-learn, enlarged from 8 x 8."""
    pixels = torch.from_numpy(load_digits().images[begin:end])[:, None] / 16
    return (F.interpolate(pixels, (size, size), mode="bilinear").clamp(0, 1) * 255).to(torch.uint8)


@cache
def photos(batch: int, size: int = 32, seed: int = 0) -> Tensor:
    """(N, 3, size, size) uint8: random crops, a quarter of the scale, of scikit-learn's two photographs.

    Crops of odd seeds come from the second one: other images, not other crops of the same.
    """
    picture = torch.from_numpy(np.array(load_sample_images().images[seed % 2])).permute(2, 0, 1)[:, ::2, ::2]
    rng = np.random.default_rng(seed)
    tops = rng.integers(picture.shape[1] - size, size=batch)
    lefts = rng.integers(picture.shape[2] - size, size=batch)
    return torch.stack([picture[:, y : y + size, x : x + size] for y, x in zip(tops, lefts, strict=True)])


@cache
def balls(batch: int, length: int, size: int = 32, seed: int = 0) -> Tensor:
    """(B, T, 1, size, size) uint8: a ball that falls, bounces and loses energy, so that time has an arrow."""
    rng = np.random.default_rng(seed)
    place = rng.uniform(4, size - 5, (batch, 2)) * (1, 0.5)
    speed = rng.uniform(-1.5, 1.5, (batch, 2)) * (1, 0.5)
    grid = np.arange(size)
    frames = np.empty((batch, length, 1, size, size), np.uint8)
    for t in range(length):
        x, y = place[:, 0, None, None], place[:, 1, None, None]
        near = (grid[None, None, :] - x) ** 2 + (grid[None, :, None] - y) ** 2
        frames[:, t, 0] = 255 * (near < 9)
        speed[:, 1] += 0.35
        place = place + speed
        low, high = place < 3, place > size - 4
        place = place.clip(3, size - 4)
        speed = np.where(low | high, -0.8 * speed, speed)
    return torch.from_numpy(frames)


def clips_of(clip: Tensor) -> Batch:
    """A batch of whole clips (B, T, C, H, W)."""
    batch = batch_of(clip[:, 0])
    return Batch(**{**vars(batch), "clip": clip, "clip_mask": torch.ones(clip.shape[:2])[:, 1:]})


def colours_of(rgb: Tensor, obs: Tensor | None = None) -> Batch:
    """A batch of (B, 3, H, W) colour images that the encoder reads as they are, or as `obs`."""
    return Batch(**{**vars(batch_of(rgb if obs is None else obs)), "rgb": rgb})


def scrambled(images: Tensor, seed: int = 0) -> Tensor:
    """Destroyed content: the pixels of each image (..., C, H, W) in an order of its own."""
    flat = images.flatten(-2)
    order = torch.rand(flat.shape[:-2] + flat.shape[-1:], generator=generator(seed)).argsort(-1)
    return flat.gather(-1, order.unsqueeze(-2).expand(flat.shape)).view_as(images)


def small_encoder(shape: tuple[int, int, int], name: str = "small") -> Encoder:
    torch.manual_seed(0)
    return build_encoder(EncoderConfig(name=name), shape)


def patch_encoder(channels: int = 1, size: int = 24, features: int = 32) -> Encoder:
    """A cheap one of images, or of patches resized to them."""
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(channels, 16, 6, stride=3), nn.ReLU())
    return Encoder(trunk, nn.Sequential(nn.LazyLinear(features), nn.LayerNorm(features)), (channels, size, size))


def draw_from(images: Tensor, batch: int = 32):
    """Batches of random images for `train_on`, the same for the same step; colour ones with their colours."""
    return lambda step: colours_of(images[torch.randint(len(images), (batch,), generator=generator(step))])


def build_task(name: str, encoder: Encoder, frame_stack: int = 1, **options: object) -> AuxTask:
    torch.manual_seed(1)
    return TASKS[name](TaskSetting(encoder, frame_stack, 3, 3, 0.9, generator(2)), **options)


def loss_of(task: AuxTask, obs: Tensor, encoder: Encoder) -> AuxOutput:
    return task.loss(colours_of(obs), encoder(obs) if "features" in task.reads else torch.empty(0), encoder)


def ahead(task: AuxTask, draw, *inputs):
    """What `draw` gives next, without moving the task's stream."""
    state = task.generator.get_state()
    drawn = draw(*inputs)
    task.generator.set_state(state)
    return drawn


def train_on(task: AuxTask, encoder: Encoder, draw, *, steps: int, lr: float = 1e-3) -> None:
    """Train encoder, head and adversary on the batches that `draw(step)` gives."""
    rivals = list(task.adversary.parameters()) if task.adversary is not None else []
    optimizer = torch.optim.Adam([{"params": [*encoder.parameters()]}, head_group(task)], lr=lr)
    adversary_optimizer = torch.optim.Adam(rivals, lr=ADVERSARY_LEARNING_RATE, betas=GAME_BETAS) if rivals else None
    for step in range(steps):
        batch = draw(step)
        features = encoder(batch.obs) if "features" in task.reads else batch.obs.new_empty(0)
        optimizer.zero_grad()
        task.loss(batch, features, encoder).loss.mean().backward()
        optimizer.step()
        if adversary_optimizer is not None:
            adversary_optimizer.zero_grad()
            task.adversary_loss(batch, encoder).backward()
            adversary_optimizer.step()
        task.after_step(batch, encoder)


@torch.no_grad()
def measure(task: AuxTask, encoder: Encoder, batch: Batch, draws: int = 4) -> dict[str, float]:
    """The metrics on a held-out batch, mean over fresh random choices."""
    features = encoder(batch.obs) if "features" in task.reads else batch.obs.new_empty(0)
    outputs = [task.loss(batch, features, encoder) for _ in range(draws)]
    found = {"loss": torch.stack([output.loss.mean() for output in outputs]).mean()}
    found |= {key: torch.stack([o.metrics[key] for o in outputs]).mean() for key in outputs[0].metrics}
    return {key: float(value) for key, value in found.items()}


def cut(encoder: Encoder) -> Encoder:
    """The same encoder, which no gradient reaches any more."""
    return encoder.requires_grad_(False)
