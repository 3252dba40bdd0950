"""Pixels, encoders and a plain training loop for tests of the auxiliary tasks."""

import torch
from torch import Tensor, nn

from aux_tasks import TASKS, AuxTask, TaskSetting
from encoders import Encoder, EncoderConfig, build_encoder
from replay import Batch


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(batch: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, (batch, *shape), dtype=torch.uint8, generator=generator(seed))


def batch_of(obs: Tensor) -> Batch:
    """A batch for losses that read the observations alone."""
    zero = torch.zeros(len(obs))
    return Batch(obs, zero.long(), zero, zero, obs, zero, zero + 1, zero.long())


def tiny_encoder(shape: tuple[int, int, int], features: int | None = None) -> Encoder:
    torch.manual_seed(0)
    neck = nn.LazyLinear(features) if features else nn.Sequential()
    return Encoder(nn.Conv2d(shape[0], 3, 3, stride=2, padding=1), neck, shape)


def make_setting(
    encoder: Encoder, *, frame_stack: int = 4, num_actions: int | None = 3, action_dim: int = 3, gamma: float = 0.8
) -> TaskSetting:
    return TaskSetting(encoder, frame_stack, num_actions, action_dim, gamma, generator(2))


def make_task(name: str, encoder: Encoder, setting: TaskSetting | None = None, **options: object) -> AuxTask:
    torch.manual_seed(1)
    return TASKS[name](setting or make_setting(encoder), **options)


def moving_balls(batch: int, seed: int = 0) -> Tensor:
    """Four frames 36x36 of a ball on its way across: the floor tells rotations apart, the ball orders of frames."""
    start = torch.randint(4, 17, (batch, 2), generator=generator(seed))
    direction = torch.randint(1, 3, (batch, 2), generator=generator(seed + 1))
    obs = torch.zeros(batch, 4, 36, 36, dtype=torch.uint8)
    obs[:, :, 33:] = 90
    for frame, travelled in enumerate((0, 2, 4, 6)):
        y, x = (start + direction * travelled).T
        for dy in range(3):
            for dx in range(3):
                obs[torch.arange(batch), frame, y + dy, x + dx] = 255
    return obs


def accuracy_after_training(name: str, draw, *, held_out: Tensor, steps: int, lr: float = 1e-3) -> float:
    """Train encoder and head on batches from `draw(step)`; accuracy on `held_out` under fresh random labels."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig(name="der"), (4, 36, 36))
    task = make_task(name, encoder)
    optimizer = torch.optim.Adam([*encoder.parameters(), *task.parameters()], lr=lr)
    for step in range(steps):
        batch = batch_of(draw(step))
        loss = task.loss(batch, encoder(batch.obs), encoder).loss.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        batch = batch_of(held_out)
        outputs = [task.loss(batch, encoder(batch.obs), encoder) for _ in range(8)]
    return float(torch.stack([output.metrics["accuracy"] for output in outputs]).mean())
