"""What `make train` runs."""

import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make")


def dry_run(*words: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "--dry-run", "--no-print-directory", *words]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)


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
    said = dry_run("train", "TORCH=", f"ARGS={words}").stdout
    assert said.splitlines()[-1].split() == f".venv/bin/python train.py {experiment}{words}".split()


@pytest.mark.parametrize(
    ("words", "right"),
    [
        ("train env=atari/pong", 'make train ARGS="env=atari/pong"'),
        ("train aux=[rotation,moco] TORCH=", 'make train ARGS="aux=[rotation,moco]"'),
        ("evaluate ARGS=seed=3 checkpoint=zoo/pong-dqn", 'make evaluate ARGS="seed=3 checkpoint=zoo/pong-dqn"'),
        ("train aux.rotation.weight=2", 'make train ARGS="aux.rotation.weight=2"'),
        ("test PYTHON=python3.12 k=launch", 'make test ARGS="k=launch"'),
    ],
)
def test_words_that_make_takes_for_variables_are_refused(words: str, right: str) -> None:
    refused = dry_run(*words.split())
    assert (refused.returncode, refused.stdout) == (2, "")
    assert right in refused.stderr
    assert refused.stderr.count("\n") == 1
