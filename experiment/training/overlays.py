"""The pictures that `agent.overlay_folder` gives to augmentation, which mixes them into observations."""

from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from agents import SACConfig
from configs.schema import Config
from envs.distractors import check_apart
from envs.scenes import SceneConfig
from harness.media import IMAGES, VIDEOS, find_files, read_image, read_video

MOST, OF_VIDEO = 1000, 50  # pictures at most, in all and of one video


def check_overlays(config: Config) -> None:
    """Raise ValueError if an overlay is also a background of the evaluation."""
    if not isinstance(config.agent, SACConfig) or not isinstance(config.env, SceneConfig):
        return
    if config.agent.overlay_folder and (folder := Path(config.agent.overlay_folder)).is_dir():
        others = config.env.background_files("eval")
        files = find_files(folder, IMAGES | VIDEOS)
        check_apart(files, others, "agent.overlay_folder", "the backgrounds of evaluation")


def read_overlays(config: Config, size: int) -> Tensor | None:
    """The pictures (M, 3, size, size) uint8 of `agent.overlay_folder`; None without one.

    Raises:
        ValueError: there are none, or one is also a background of the evaluation.
    """
    if not isinstance(config.agent, SACConfig) or not config.agent.overlay_folder:
        return None
    try:
        files = find_files(Path(config.agent.overlay_folder), IMAGES | VIDEOS)
    except ValueError as error:
        raise ValueError(f"agent.overlay_folder={error}") from error
    check_overlays(config)
    pictures: list[np.ndarray] = []
    for path in files:
        if path.suffix.lower() in IMAGES:
            pictures.append(read_image(path, size))
        else:
            pictures += islice(read_video(path, size, 10 * OF_VIDEO), 0, None, 10)
        if len(pictures) >= MOST:
            break
    return torch.from_numpy(np.stack(pictures[:MOST])).permute(0, 3, 1, 2).contiguous()
