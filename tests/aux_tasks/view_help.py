"""A tiny encoder and slow arithmetic for tests of the tasks on images."""

import numpy as np
import torch
from aux_help import generator, tiny_encoder
from pretext_help import build_task

from aux_tasks import AuxTask
from encoders import Encoder

SHAPE, B, Z = (2, 9, 11), 6, 5
SMALL = {
    "simclr": {"hidden": 64},
    "moco": {"hidden": 64, "queue": 256},
    "byol": {"hidden": 64},
    "barlow_twins": {"hidden": 64},
    "vicreg": {"hidden": 64},
}
PUZZLES = {"permutations": 6, "puzzles": 3, "embedding_dim": 4, "hidden": 7}
ROWS = {"cells": 5, "steps": 2, "embedding_dim": 8, "layers": 3}


def tiny(
    name: str, shape: tuple[int, int, int] = SHAPE, frame_stack: int = 2, **options: object
) -> tuple[AuxTask, Encoder]:
    """The task with a tiny encoder."""
    encoder = tiny_encoder(shape, Z)
    return build_task(name, encoder, frame_stack, **options), encoder


def two_views(task: AuxTask, obs: torch.Tensor) -> list[torch.Tensor]:
    """The next two views of each sample."""
    return [task.views(obs, task.generator, task.frame_stack) for _ in range(2)]


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def unit(rows: torch.Tensor) -> np.ndarray:
    """Rows scaled to length one."""
    found = array(rows)
    return found / np.sqrt((found**2).sum(1, keepdims=True))


def move(module: torch.nn.Module, seed: int = 5) -> None:
    """Change all weights, as some training would."""
    draw = generator(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.6 * torch.rand(parameter.shape, generator=draw) - 0.3
