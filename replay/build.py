"""From the config of a replay to the replay."""

import logging
from functools import partial

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, flatdim

from replay.config import ReplayConfig
from replay.device_sampler import DeviceSampler
from replay.frames import Dtype, Padding
from replay.relabel import GoalFunctions, Relabeller
from replay.replay import Replay
from replay.samplers import LapSampler, PrioritizedSampler, Sampler, UniformSampler
from replay.storage import FrameStorage
from replay.synthetic import Features, SyntheticReplay

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
    device_rng: torch.Generator | None = None,
    padding: Padding = "zeros",
    frame_dtype: Dtype = np.uint8,
    goal_dim: int = 0,
    goal_functions: GoalFunctions | None = None,
    features: Features | None = None,
) -> Replay:
    """Make the replay that `config` describes; the other arguments are those of `FrameStorage` and `Replay`.

    `device_rng` takes the place of `rng` where batches are drawn on a device. With `features`, part of each batch is
    synthetic.

    Raises:
        ValueError: the storage is not available, or `path` does not belong to it.
        MemoryError: the capacity does not fit; the message names one that does.
    """
    _check(config, device)
    storage = FrameStorage(
        config.capacity,
        num_envs,
        frame_shape,
        action_space,
        path=config.path if config.storage == "mmap" else None,
        device=device if config.storage == "cuda" else None,
        padding=padding,
        frame_dtype=frame_dtype,
        goal_dim=goal_dim,
    )
    if config.storage == "ram" and device.type == "cuda" and storage.nbytes < torch.cuda.mem_get_info(device)[0]:
        log.info("replay: the frames would fit on the GPU, where sampling is faster: replay.storage=cuda")
    draws = rng if storage.device is None else device_rng
    assert draws is not None, "batches are drawn on a device: device_rng is needed"
    kind = partial(SyntheticReplay, features=features, action_dim=flatdim(action_space)) if features else Replay
    return kind(
        storage,
        _sampler(config, storage),
        config,
        frame_stack=frame_stack,
        gamma=gamma,
        clip_reward=clip_reward,
        rng=draws,
        device=device,
        relabeller=Relabeller(config.relabel, goal_functions) if goal_functions else None,
    )


def _sampler(config: ReplayConfig, storage: FrameStorage) -> Sampler:
    cells, kind = storage.rows * storage.num_envs, LapSampler if config.lap else PrioritizedSampler
    if storage.device is not None:
        formula = kind(1, config.alpha).priority if config.prioritized else None
        return DeviceSampler(cells, formula, storage.device)
    return kind(cells, config.alpha) if config.prioritized else UniformSampler(cells)


def _check(config: ReplayConfig, device: torch.device) -> None:
    if config.storage == "cuda" and device.type != "cuda":
        raise ValueError(f"replay.storage=cuda: {device} of the run is not a CUDA device; use replay.storage=ram")
    if (config.storage == "mmap") != (config.path is not None):
        raise ValueError(
            f"replay.path belongs to replay.storage=mmap alone, got {config.storage} and path={config.path}"
        )
