"""What `make train` and `make demo` run."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

import evaluate
import train

SMALL = (
    "steps=100 learning_starts=40 batch_size=4 agent.hidden=8 replay.capacity=200 diagnose_every=50 eval_episodes=2"
    " device=cpu threads=1"
)

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make")


def dry_run(*words: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "--dry-run", "--no-print-directory", *words]
    return subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)


def made(*words: str) -> list[list[str]]:
    """The words of this repository's commands that make would run."""
    said = dry_run(*words, "TORCH=").stdout
    return [line.split()[1:] for line in said.splitlines() if line.startswith(".venv/bin/python") and ".py " in line]


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
    assert made("train", f"ARGS={words}") == [f"train.py {experiment}{words}".split()]


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


def test_the_demo_leaves_what_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = {script: words for script, *words in made("demo")}
    assert train.main([*commands["train.py"], *SMALL.split()]) == 0
    trained = [word for word in commands["evaluate.py"] if not word.startswith("checkpoint=")]
    assert evaluate.main([*trained, "checkpoint=runs/demo/catch"]) == 0
    for name in ("catch/game.mp4", "catch/pictures/permutation-100.png", "pong.mp4", "pong/both_4.png"):
        assert (tmp_path / "runs/demo" / name).stat().st_size, name
    assert len(json.loads(Path("runs/demo/pong.json").read_text())["returns"]) == 1
