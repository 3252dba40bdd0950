"""The real training learns Catch from pixels, where random play scores -0.5. A minute or two each on one core."""

import json
from pathlib import Path
from typing import Any

import pytest

from agents import DQNConfig
from agents.dqn import Precision
from aux_tasks import TaskConfig
from configs.schema import Config
from encoders import EncoderConfig
from envs import ToyConfig
from replay import ReplayConfig
from train import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def learned(
    run_dir: Path, aux: dict[str, TaskConfig], precision: Precision = Precision.float32
) -> tuple[float, dict[str, Any]]:
    """The mean score of 100 games after 24000 steps of Catch, and the last line of the log."""
    config = Config(
        env=ToyConfig(num_envs=4),
        agent=DQNConfig(learning_rate=1e-3, hidden=64, epsilon_steps=8_000, precision=precision),
        encoder=EncoderConfig(name="der"),
        replay=ReplayConfig(capacity=20_000, n_step=3, prioritized=True),
        aux=aux,
        device="cpu",
        threads=1,
        steps=24_000,
        learning_starts=500,
        log_every=1_000,
        diagnose_every=0,
        checkpoint_every=0,
        eval_episodes=100,
        run_dir=str(run_dir),
    )
    assert train(config) == 0
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    mean = json.loads((run_dir / "report.json").read_text())["summary"]["mean"]
    return mean, next(line for line in reversed(lines) if "train/loss" in line)


@pytest.mark.parametrize("precision", Precision)
def test_dqn_learns_catch(precision, tmp_path):
    mean, _ = learned(tmp_path, {}, precision)
    assert mean > 0.5


def test_permutation_is_solved_beside_catch(tmp_path):
    mean, metrics = learned(tmp_path, {"permutation": TaskConfig(weight=0.3)})
    assert mean > 0.5
    assert metrics["aux/permutation/accuracy"] > 0.8
