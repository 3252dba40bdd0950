"""From the config of a replay to the replay."""

import logging

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete

from replay.config import ReplayConfig
from replay.frames import Dtype, Padding
from replay.relabel import GoalFunctions, Relabeller
from replay.replay import Replay
from replay.samplers import LapSampler, PrioritizedSampler, Sampler, UniformSampler
from replay.storage import FrameStorage

log = logging.getLogger(__name__)


def build_replay(
    config: ReplayConfig,
    *,
    num_envs: int,
    frame_shape: tuple[int, int, int],
    action_space: Discrete | Box,
    frame_stack: int,
    gamma: float,
    clip_reward: bool,
    rng: np.random.Generator,
    device: torch.device,
    padding: Padding = "zeros",
    frame_dtype: Dtype = np.uint8,
    goal_dim: int = 0,
    goal_functions: GoalFunctions | None = None,
) -> Replay:
    """Make the replay that `config` describes; the other arguments are those of `FrameStorage` and `Replay`.

    Raises:
        ValueError: the storage is not available, or `path` does not belong to it.
        MemoryError: the capacity does not fit; the message names one that does.
    """
    _check(config)
    storage = FrameStorage(
        config.capacity,
        num_envs,
        frame_shape,
        action_space,
        path=config.path if config.storage == "mmap" else None,
        device=torch.device("cuda") if config.storage == "cuda" else None,
        padding=padding,
        frame_dtype=frame_dtype,
        goal_dim=goal_dim,
    )
    if config.storage == "ram" and device.type == "cuda" and storage.nbytes < torch.cuda.mem_get_info(device)[0]:
        log.info("replay: it would fit on the GPU, where sampling is faster: replay.storage=cuda")
    cells = storage.rows * num_envs
    sampler: Sampler = UniformSampler(cells)
    if config.prioritized:
        sampler = (LapSampler if config.lap else PrioritizedSampler)(cells, config.alpha)
    return Replay(
        storage,
        sampler,
        config,
        frame_stack=frame_stack,
        gamma=gamma,
        clip_reward=clip_reward,
        rng=rng,
        device=device,
        relabeller=Relabeller(config.relabel, goal_functions) if goal_functions else None,
    )


def _check(config: ReplayConfig) -> None:
    if config.storage == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            "replay.storage=cuda: this machine or this build of torch has no CUDA device; use replay.storage=ram"
        )
    if (config.storage == "mmap") != (config.path is not None):
        raise ValueError(
            f"replay.path belongs to replay.storage=mmap alone, got {config.storage} and path={config.path}"
        )
