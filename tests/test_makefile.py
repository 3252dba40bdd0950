"""What `make train` runs."""

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.skipif(not shutil.which("make"), reason="no make")
@pytest.mark.parametrize(
    ("words", "experiment"),
    [
        ("", "experiment=pong_cpu "),
        ("seed=3 env.num_envs=4 run_dir=/tmp/envelope", "experiment=pong_cpu "),
        ("aux=none env=atari/breakout", "experiment=atari_cpu "),
        ("-m env.game=boxing,pong", "experiment=atari_cpu "),
        ("experiment=sac_cartpole env.background=gas", ""),
    ],
)
def test_a_game_that_is_named_is_not_pong(words: str, experiment: str) -> None:
    command = ["make", "--dry-run", "--no-print-directory", "train", "TORCH=", f"ARGS={words}"]
    said = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True).stdout
    assert said.splitlines()[-1].split() == f".venv/bin/python train.py {experiment}{words}".split()
