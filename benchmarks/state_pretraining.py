"""Teach an encoder the simulator's state with background videos, by labels, and save it as the start of a training.

    python benchmarks/state_pretraining.py [steps=2000] [frames=10000] [out=runs/state_labels]
    python train.py experiment=sac_cartpole env.background=gas ... encoder.init=runs/state_labels/encoder.safetensors

A training that begins with such an encoder shows what is lost where the state cannot be seen: results/control.md. The
world is that of five background videos there, the frames are random play.
"""

from pathlib import Path

import numpy as np
import torch
from common import config_of, need_env, options, standardized_state
from torch import nn

from configs.schema import Config
from configs.sources import FramesConfig
from datasets import EpisodeSampler
from experiment.folders.weights import export_encoder
from experiment.probing.build import build_denoising
from experiment.sources.build import build_source
from experiment.training.build import build_initial_encoder
from harness.process import tune_process

WORLD = ["experiment=sac_cartpole", "env.background=gas", "env.background_speed=1", "env.films=5", "aux=none"]
LEARNING_RATE, SHOWN = 1e-3, 500  # updates between lines


def main() -> None:
    """Train, print the denoising factor on the way, and save."""
    given = options(steps=2_000, frames=10_000, out="runs/state_labels")
    tune_process(1)
    of = config_of("config", [*WORLD, "device=cpu", "threads=1"], Config)
    need_env(of.env)
    episodes = build_source(FramesConfig(frames=given["frames"]), of.env, seed=0)
    sampler = EpisodeSampler(episodes, frame_stack=of.frame_stack, grayscale=False, device=torch.device("cpu"))
    target = standardized_state(episodes)
    encoder = build_initial_encoder(of.encoder, sampler.obs_shape, seed=0, frame_stack=of.frame_stack)
    torch.manual_seed(0)
    head = nn.Linear(encoder.feature_dim, target.shape[1])
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], LEARNING_RATE)
    test, rng = build_denoising(of.env, encoder, of.frame_stack), np.random.default_rng(0)
    assert test is not None
    for step in range(1, given["steps"] + 1):
        rows = rng.integers(len(target), size=of.batch_size)
        loss = (head(encoder(sampler.observe(rows))) - target[rows]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % SHOWN == 0 or step == given["steps"]:
            print(step, {name: round(score, 2) for name, score in test(encoder).items()}, flush=True)
    folder = Path(given["out"])
    folder.mkdir(parents=True, exist_ok=True)
    export_encoder(encoder, folder)
    print(f"encoder       {folder / 'encoder.safetensors'}")


if __name__ == "__main__":
    main()
