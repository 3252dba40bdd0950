"""One source of each kind, small enough for a test."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from analysis.video import video_writer
from aux_tasks import TaskConfig
from configs.schema import PretrainConfig
from configs.sources import BallsConfig, FramesConfig, SourceConfig
from encoders import EncoderConfig
from envs import ToyConfig
from experiment.sources.build import build_source

TOY = ToyConfig(num_envs=3, balls=2)
STEPS = 50  # of each of its copies


def frames(folder: Path, count: int = 3 * STEPS, **changes: Any) -> FramesConfig:
    return FramesConfig(count, path=str(folder / "frames"), **changes)


def idx_folder(folder: Path) -> Path:
    folder.mkdir()
    for name, count in (("train", 30), ("t10k", 10)):
        pixels = np.random.default_rng(count).integers(256, size=(count, 28, 28), dtype=np.uint8)
        head = struct.pack(">4B3I", 0, 0, 8, 3, count, 28, 28)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">4BI", 0, 0, 8, 1, count) + bytes(count))
    return folder


def image_folder(folder: Path) -> Path:
    for i in range(12):
        path = folder / "ab"[i % 2] / f"group_{i // 4}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(256, size=(40, 40, 3), dtype=np.uint8)).save(path)
    return folder


def video_folder(folder: Path) -> Path:
    balls = build_source(BallsConfig(episodes=2, length=20), TOY, seed=0)
    for i, film in enumerate(balls.frames.reshape(2, 20, 3, 32, 32)):
        with video_writer(folder / f"{i}.mp4", fps=10) as add:
            for frame in film:
                add(frame.transpose(1, 2, 0))
    return folder


def multiview_folder(folder: Path) -> Path:
    for sequence in "abc":
        (folder / sequence).mkdir(parents=True)
        video_folder(folder / sequence)
    return folder


def pretraining(source: SourceConfig, run_dir: Path, task: str, **changes: Any) -> PretrainConfig:
    settings: dict[str, Any] = {"steps": 3, "batch_size": 6, "log_every": 2, "diagnose_every": 2, "threads": 1}
    settings |= {"encoder": EncoderConfig("small"), "aux": {task: TaskConfig()}, "device": "cpu"}
    return PretrainConfig(source, **{"env": TOY, **settings, **changes}, run_dir=str(run_dir))
