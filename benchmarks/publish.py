"""Make a folder of zoo/ from a finished run:

    python benchmarks/publish.py runs/pong/dqn+permutation-pong_cpu/s0 zoo/pong-permutation

Weights are stored as float16, half the size; evaluate the folder afterwards, so that its report is of these weights.
"""

import sys
from dataclasses import replace
from pathlib import Path
from shutil import copyfile

import torch

from configs.schema import Config
from experiment.command_line.composition import read_config, write_config
from experiment.folders.weights import read_weights, write_weights
from experiment.goals.space import GOAL_SPACE_FILE


def main(run: Path, folder: Path) -> None:
    """Write the config and the halved weights."""
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(read_config(run / "config.yaml", Config), run_dir=None)
    if (run / GOAL_SPACE_FILE).is_file():
        copyfile(run / GOAL_SPACE_FILE, folder / GOAL_SPACE_FILE)
        config = replace(config, goal=replace(config.goal, space=str(folder)))
    write_config(config, folder / "config.yaml")
    weights, shapes = read_weights(run / "agent.safetensors")
    halved = {name: tensor.to(torch.float16) for name, tensor in weights.items()}
    write_weights(halved, folder / "agent.safetensors", shapes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
