"""A tiny encoder and what a task on views draws next."""

import numpy as np
import torch
from aux_help import batch_of, generator, tiny_encoder
from pretext_help import build_task, cut, digits, measure, train_on

from aux_tasks import AuxOutput, AuxTask
from aux_tasks.views import ViewTask
from encoders import Encoder

SHAPE, B, Z = (2, 9, 11), 6, 5
SMALL = {
    "simclr": {"hidden": 64},
    "moco": {"hidden": 64, "queue": 256},
    "byol": {"hidden": 64},
    "barlow_twins": {"hidden": 64},
    "vicreg": {"hidden": 64},
    "exemplar": {"classes": 64},
}


def tiny(name: str, **options: object) -> tuple[ViewTask, Encoder]:
    """The task with a tiny encoder of stacks of two frames."""
    encoder = tiny_encoder(SHAPE, Z)
    task = build_task(name, encoder, frame_stack=2, **options)
    assert isinstance(task, ViewTask)
    return task, encoder


def loss_of(task: AuxTask, obs: torch.Tensor, encoder: Encoder) -> AuxOutput:
    return task.loss(batch_of(obs), torch.empty(0), encoder)


def next_views(task: ViewTask, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The two views of each sample that the task draws next, without moving its stream."""
    draw = task.generator.clone_state()
    return task.views(obs, draw, task.frame_stack), task.views(obs, draw, task.frame_stack)


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def unit(rows: torch.Tensor) -> np.ndarray:
    """Rows scaled to length one."""
    found = array(rows)
    return found / np.sqrt((found**2).sum(1, keepdims=True))


def move(module: torch.nn.Module, seed: int = 5) -> None:
    """Change all weights, as some training would."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.3 * torch.rand(parameter.shape, generator=generator(seed))


def collapse(task: ViewTask) -> None:
    """Let the head send everything to one point."""
    last = [layer for layer in task.head.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.arange(1.0, len(last.bias) + 1))


def moved_by_backward(task: AuxTask, encoder: Encoder, obs: torch.Tensor) -> set[str]:
    """Names of the parameters of encoder and task that get a gradient other than 0."""
    loss_of(task, obs, encoder).loss.mean().backward()
    named = [*encoder.named_parameters("encoder"), *task.named_parameters()]
    return {name for name, p in named if p.grad is not None and bool(p.grad.abs().sum() > 0)}


def accuracy_on_digits(
    name: str, train: torch.Tensor, held_out: torch.Tensor, *, steps: int, frozen: bool = False
) -> dict[str, float]:
    """Metrics on held-out images after training on others; the head learns, a `frozen` encoder does not."""
    encoder = tiny_encoder((1, 16, 16), 32)
    task = build_task(name, encoder, views="digits", **SMALL[name])
    if frozen:
        cut(encoder)

    def draw(step):
        return batch_of(train[torch.randint(len(train), (64,), generator=generator(step))])

    train_on(task, encoder, draw, steps=steps, lr=3e-3)
    return measure(task, encoder, batch_of(held_out), draws=8)


def sixteen(begin: int, end: int) -> torch.Tensor:
    return digits(begin, end, 16)
