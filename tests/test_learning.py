"""The real training learns toys from pixels: Catch, where random play scores -0.5, and the point mass, where it scores
13. A minute or two each on one core.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from agents import DQN, SAC, DQNConfig, SACConfig
from agents.config import Head, Precision
from aux_tasks import TaskConfig
from configs.schema import Config
from encoders import EncoderConfig
from envs import PointMassConfig, ToyConfig
from experiment.command_line.overrides import compose_words
from experiment.folders.run_folder import with_run_dir
from replay import ReplayConfig
from train import train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def learned(run_dir: Path, aux: dict[str, TaskConfig], **agent: Any) -> tuple[float, dict[str, Any]]:
    """The mean score of 100 games after 20000 steps of Catch, and the last line of the log."""
    config = whole_run(
        run_dir,
        env=ToyConfig(num_envs=4),
        agent=DQNConfig(learning_rate=1e-3, hidden=64, target_tau=0.02, epsilon_steps=6_000, **agent),
        encoder=EncoderConfig(name="der"),
        replay=ReplayConfig(capacity=20_000, n_step=3, prioritized=True),
        aux=aux,
        steps=20_000,
        learning_starts=500,
    )
    assert train(config) == 0
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return score(run_dir), next(line for line in reversed(lines) if "train/loss" in line)


def whole_run(run_dir: Path, **settings: Any) -> Config:
    """A run on one core, logged, judged over 100 games, and never stopped on the way."""
    return Config(
        **settings,
        device="cpu",
        threads=1,
        log_every=1_000,
        diagnose_every=0,
        checkpoint_every=0,
        eval_episodes=100,
        run_dir=str(run_dir),
    )


def score(run_dir: Path) -> float:
    """The mean of the run's report."""
    return json.loads((run_dir / "report.json").read_text())["summary"]["mean"]


@pytest.mark.parametrize(
    "agent",
    [
        {},
        {"precision": Precision.bfloat16},
        {"head": Head.quantile, "quantiles": 16},
        {"head": Head.implicit, "quantiles": 8},
    ],
    ids=["float32", "bfloat16", "quantile", "implicit"],
)
def test_dqn_learns_catch(agent, tmp_path):
    mean, _ = learned(tmp_path, {}, **agent)
    assert mean > 0.5  # measured: 0.74, in 40 s of CPU


def test_permutation_is_solved_beside_catch(tmp_path):
    mean, metrics = learned(tmp_path, {"permutation": TaskConfig(weight=0.3)})
    assert mean > 0.5
    assert metrics["aux/permutation/accuracy"] > 0.8


def point_mass(tmp_path, *, features, noise, **options):
    return whole_run(
        tmp_path,
        env=PointMassConfig(num_envs=4, noise=noise),
        agent=SACConfig(hidden=64),
        encoder=EncoderConfig(name="der", feature_dim=features),
        replay=ReplayConfig(capacity=20_000, n_step=1),
        frame_stack=1,
        gamma=0.95,
        clip_reward=False,
        steps=6_000,
        learning_starts=1_000,
        batch_size=64,
        **options,
    )


def test_sac_masters_the_point_mass(tmp_path):
    """Measured: 47.3, with two other seeds 45.3 and 47.2, in a minute of one core; the best steering scores 48.7."""
    assert train(point_mass(tmp_path, features=16, noise=False, replay_ratio=0.5)) == 0
    assert score(tmp_path) > 42


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_sac_learns_the_point_mass_by_the_critics_gradient_on_the_encoder(cut, tmp_path, monkeypatch):
    """Four features of noisy pixels are not enough unless they are learned.

    Measured with one seed: 19.0 with the gradient (24.6 after 4000 steps), 13.2 without it (after 4000 steps). The
    bound is the middle.
    """
    if cut:
        td_loss = SAC.td_loss
        monkeypatch.setattr(SAC, "td_loss", lambda self, features, *rest: td_loss(self, features.detach(), *rest))
    assert train(point_mass(tmp_path, features=4, noise=True)) == 0
    assert score(tmp_path) < 16 if cut else score(tmp_path) > 16


@pytest.mark.parametrize("hindsight", [True, False])
def test_fifteen_bits_are_flipped_with_hindsight_and_never_without(hindsight, tmp_path):
    """HER, figure 1: without it the goal is never met, so that no reward tells what to do."""
    words = [] if hindsight else ["replay.relabel.rollout=1", "replay.relabel.future=0"]
    given = ["experiment=her_bitflip", "device=cpu", "threads=1", f"run_dir={tmp_path}"]
    assert train(with_run_dir(compose_words("config", *given, *words), Config)) == 0
    reached = json.loads((tmp_path / "report.json").read_text())["summary"]["success_rate"]
    assert reached >= 0.95 if hindsight else reached <= 0.05


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
def test_what_a_picture_shows_is_grasped(cut, tmp_path, monkeypatch):
    """A gripper that takes any object is right in a fifth of the trays; one that does not learn, in 3 of 100.

    Measured: 0.59 on 1,000 trays after 12,000 steps. Cut, the values tell nothing of the goal.
    """
    if cut:
        beside_goal = DQN.beside_goal
        monkeypatch.setattr(DQN, "beside_goal", lambda self, features, goal: beside_goal(self, features, 0 * goal))
    given = ["experiment=grasp2vec", "device=cpu", "threads=1", f"run_dir={tmp_path}", "steps=20_000"]
    given += ["agent.epsilon_steps=12_000", "eval_episodes=200"]
    assert train(with_run_dir(compose_words("config", *given), Config)) == 0
    reached = json.loads((tmp_path / "report.json").read_text())["summary"]["success_rate"]
    assert reached < 0.3 if cut else reached > 0.35
