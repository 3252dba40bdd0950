"""Transitions, clips and slow networks for tests of the tasks on control."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from aux_help import generator, make_setting, make_task, noise, tiny_encoder
from numpy.typing import NDArray
from torch import Tensor, nn

from aux_tasks import AuxTask
from encoders import Encoder
from replay import Batch

B, SHAPE, Z, A = 7, (4, 12, 12), 5, 3
STEPS = 4  # in a clip
Array = NDArray[np.float64]


def made(
    name: str, *, encoder: Encoder | None = None, continuous: bool = False, **options: object
) -> tuple[Encoder, AuxTask]:
    """The task with a tiny encoder, or another one."""
    encoder = encoder or tiny_encoder(SHAPE, Z)
    setting = make_setting(encoder, num_actions=None if continuous else A, action_dim=A)
    return encoder, make_task(name, encoder, setting, **options)


def transitions(*, continuous: bool = False) -> Batch:
    """Random ones."""
    draw = generator()
    action = torch.rand(B, A, generator=draw) * 2 - 1 if continuous else torch.randint(A, (B,), generator=draw)
    reward, one = torch.randn(B, generator=draw), torch.ones(B)
    obs, next_obs, later = (noise(B, *SHAPE, seed=seed) for seed in (1, 2, 3))
    return Batch(obs, action, reward, reward + 9, later, one, one, one.long(), next_obs)


def clips(*, continuous: bool = False) -> Batch:
    """Random ones that begin at `obs`."""
    draw, batch = generator(7), transitions()
    action = torch.randint(A, (B, STEPS), generator=draw)
    if continuous:
        action = torch.rand(B, STEPS, A, generator=draw) * 2 - 1
    mask = torch.ones(B, STEPS)
    mask[1, 2:] = mask[2, 1:] = mask[3] = 0  # two episodes end on the way, one at once
    whole = noise(B * (STEPS + 1), *SHAPE).reshape(B, STEPS + 1, *SHAPE)
    return replace(batch, obs=whole[:, 0], clip=whole, clip_action=action, clip_mask=mask)


def array(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def smooth_l1(error: float) -> float:
    return error**2 / 2 if abs(error) < 1 else abs(error) - 0.5


def cross_entropy(logits: Sequence[float], label: int) -> float:
    return float(np.log(np.exp(logits).sum()) - logits[label])


def slow_mlp(net: nn.Sequential, x: Array) -> Array:
    """One hidden layer with layer normalisation and ReLU, in float64."""
    first, norm, _, last = net
    hidden = array(first.weight) @ x + array(first.bias)
    hidden = (hidden - hidden.mean()) / np.sqrt(hidden.var() + 1e-5) * array(norm.weight) + array(norm.bias)
    return array(last.weight) @ np.maximum(hidden, 0) + array(last.bias)


def slow_prediction(members: nn.ModuleList, latent: Array, action: Array, kind: str) -> list[tuple[Array, Array]]:
    """Mean and standard deviation of each member, for one sample; zero for points."""
    predictions = []
    for member in members:
        output = slow_mlp(member, np.concatenate([latent, action]))
        if kind == "deterministic":
            predictions.append((output, np.zeros(Z)))
        else:
            predictions.append((output[:Z], np.log(1 + np.exp(output[Z:])) + 0.01))
    return predictions


def slow_likelihood(predictions: list[tuple[Array, Array]], target: Array) -> float:
    """Negative log-likelihood without the constant, mean over members and dimensions."""
    terms = []
    for mean, std in predictions:
        std = std if std.any() else np.ones(Z)
        terms += [((m - y) / s) ** 2 / 2 + np.log(s) for m, s, y in zip(mean, std, target, strict=True)]
    return float(np.mean(terms))


def action_array(batch: Batch) -> Array:
    return array(batch.action) if batch.action.is_floating_point() else np.eye(A)[batch.action.numpy()]


# --- a world to learn from ---


def dots(batch: int = 64, steps: int = 2) -> Batch:
    """A dot that an action moves on a 4x4 grid that wraps, and in the other channel a pattern that stays."""
    draw = generator()
    place = torch.randint(4, (batch, 2), generator=draw)
    action = torch.randint(4, (batch, steps), generator=draw)
    move = torch.tensor([[0, 1], [1, 0], [0, 3], [3, 0]])
    pattern = torch.randint(2, (batch, 4, 4), generator=draw).to(torch.uint8) * 255
    frames = [_draw_dots(place, pattern)]
    for k in range(steps):
        place = (place + move[action[:, k]]) % 4
        frames.append(_draw_dots(place, pattern))
    reward = place[:, 0] / 2 - place[:, 1] / 4.0
    one = torch.ones(batch)
    return Batch(
        frames[0], action[:, 0], reward, reward, frames[1], one, one, one.long(), frames[1],
        clip=torch.stack(frames, dim=1), clip_action=action, clip_mask=torch.ones(batch, steps),
    )  # fmt: skip


def _draw_dots(place: Tensor, pattern: Tensor) -> Tensor:
    dot = torch.zeros_like(pattern)
    dot[torch.arange(len(place)), place[:, 0], place[:, 1]] = 255
    return torch.stack([dot, pattern], dim=1).repeat_interleave(4, 2).repeat_interleave(4, 3)


def dots_encoder() -> Encoder:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.Conv2d(2, 16, 4, stride=4), nn.ReLU())
    return Encoder(trunk, nn.Linear(256, 32), (2, 16, 16))


def shuffled(batch: Batch, draw: torch.Generator) -> Batch:
    """The same samples, each with the action, the reward and the future of others."""
    future, action, reward = (torch.randperm(len(batch.obs), generator=draw) for _ in range(3))
    clip = torch.cat([batch.clip[:, :1], batch.clip[future, 1:]], dim=1)
    next_obs, action, reward = batch.next_obs[future], batch.action[action], batch.reward[reward]
    return replace(batch, next_obs=next_obs, action=action, reward=reward, clip=clip)
