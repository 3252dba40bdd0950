"""A training small enough for a test, and ways to kill it."""

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import train as script
from agents import Agent, DQNConfig, SACConfig
from agents.base import AuxSchedule
from agents.config import Conflict, Target
from aux_tasks import TaskConfig
from configs.collect import CollectConfig
from configs.schema import Config
from encoders import EncoderConfig
from envs import AtariConfig, DmcVector, PointMassConfig, PointMassVector, ToyConfig, ToyVector, VectorEnv
from envs.atari import AtariVector
from experiment.command_line.composition import write_config
from experiment.folders.weights import export_agent
from experiment.training.build import build
from harness.checkpoint import load_latest
from replay import ReplayConfig
from replay.config import SyntheticConfig

COPIES = 3


def small(run_dir: Path, **changes: Any) -> Config:
    """120 steps of Catch in three copies: learning from step 24 on, checkpoints at 48, 96 and 120."""
    settings = {
        "env": ToyConfig(num_envs=COPIES),
        "agent": DQNConfig(hidden=8, epsilon_steps=60),
        "encoder": EncoderConfig(name="der"),
        "replay": ReplayConfig(capacity=90),  # the ring wraps before the end
        "device": "cpu",
        "threads": 1,
        "steps": 120,
        "learning_starts": 24,
        "replay_ratio": 1 / 6,
        "batch_size": 4,
        "log_every": 12,
        "diagnose_every": 60,
        "checkpoint_every": 48,
        "eval_episodes": 0,
        "run_dir": str(run_dir),
    }
    return Config(**{**settings, **changes})


def hard(run_dir: Path, **changes: Any) -> Config:
    """The same with every part that has a state of its own."""
    parts = {
        "env": ToyConfig(num_envs=COPIES, time_limit=9),
        "agent": DQNConfig(
            hidden=8, epsilon_steps=60, random_shift=2, target=Target.hard, target_every=5, average_tau=0.2
        ),
        "encoder": EncoderConfig(name="der", standardize=True),
        "replay": ReplayConfig(capacity=90, prioritized=True),
        "aux": {
            "permutation": TaskConfig(weight=0.5, options={"hidden": 8, "crop_rows": [0, 24]}),
            "rotation": TaskConfig(),
        },
    }
    return small(run_dir, **{**parts, **changes})


def continuous(run_dir: Path, **changes: Any) -> Config:
    """SAC on the point mass in colour, with one task that follows the encoder and one that models the world."""
    parts = {
        "env": PointMassConfig(num_envs=COPIES, time_limit=9, grayscale=False),
        "agent": SACConfig(hidden=8, random_shift=2, num_shifts=2),
        "encoder": EncoderConfig(name="control_fast", feature_dim=6, standardize=True),
        "replay": ReplayConfig(capacity=90, n_step=1, prioritized=True),
        "aux": {"curl": TaskConfig(), "deepmdp": TaskConfig(weight=0.5, options={"hidden": 8})},
        "frame_stack": 2,
    }
    return small(run_dir, **{**parts, **changes})


def synthetic(run_dir: Path, **changes: Any) -> Config:
    """SAC on features of a frozen encoder, half of them made by a model that learns twice between checkpoints."""
    replay = ReplayConfig(
        capacity=90,
        n_step=1,
        synthetic=SyntheticConfig(share=0.5, every=30, updates=2, transitions=20, sampling_steps=2),
    )
    parts = {"agent": SACConfig(hidden=8, encoder_scale=0.0), "aux": {}, "replay": replay}
    return continuous(run_dir, **{**parts, **changes})


def alternating(run_dir: Path, **changes: Any) -> Config:
    """The same as `hard` but for auxiliary tasks that take turns with the agent, and frames in a file."""
    agent = DQNConfig(hidden=8, epsilon_steps=60, random_shift=2, aux_schedule=AuxSchedule.alternating)
    replay = ReplayConfig(capacity=90, prioritized=True, storage="mmap", path=str(run_dir / "frames.bin"))
    return hard(run_dir, **{"agent": agent, "replay": replay, **changes})


def gated(run_dir: Path, **changes: Any) -> Config:
    """The same as `hard`, with two tasks whose gradients are projected where they conflict, in turns, LAP, and returns
    that shorten.
    """
    agent = DQNConfig(hidden=8, epsilon_steps=60, conflict=Conflict.pcgrad)
    replay = ReplayConfig(capacity=90, prioritized=True, lap=True, final_n_step=1, n_step_steps=100)
    return hard(run_dir, **{"agent": agent, "replay": replay, **changes})


def exploring(run_dir: Path, **changes: Any) -> Config:
    """The same as `hard`, with a bonus of contrastive features and one of a forward model."""
    aux = {
        "contrastive_ucb": TaskConfig(bonus_weight=0.5, options={"hidden": 8, "latent_dim": 4}),
        "self_prediction": TaskConfig(bonus_weight=0.2, options={"hidden": 8}),
    }
    return hard(run_dir, **{"aux": aux, "replay": ReplayConfig(capacity=90, n_step=1, prioritized=True), **changes})


def atari(run_dir: Path, **changes: Any) -> Config:
    """240 steps of Pong at half its size, in games of 25 steps; checkpoints at 96, 192 and 240."""
    parts = {
        "env": AtariConfig(num_envs=COPIES, size=42, max_frames=100),
        "encoder": EncoderConfig(name="small", standardize=True),
        "aux": {"permutation": TaskConfig()},
        "steps": 240,
        "checkpoint_every": 96,
    }
    return small(run_dir, **{**parts, **changes})


def overlapped(run_dir: Path, **changes: Any) -> Config:
    """The same, stepped while the agent learns."""
    return atari(run_dir, collect=CollectConfig("overlap"), **changes)


def exported_agent(config: Config, folder: Path) -> Agent:
    """An untrained agent for the environment of `config`, as a run leaves it in `folder`."""
    parts = build(config)
    parts.env.close()
    folder.mkdir(parents=True, exist_ok=True)
    write_config(config, folder / "config.yaml")
    export_agent(parts.agent, parts.env.action_space, folder)
    return parts.agent


def in_child(function: Callable[[], int]) -> int:
    """How a forked process ends that runs `function`: its exit code, or minus the signal."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 99
    try:
        code = function()
    except BaseException:  # noqa: BLE001 — told here, since no one outlives it to tell
        traceback.print_exc()
    finally:
        os._exit(code)


def at_step(step: int, action: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Call `action` when the environment is about to bring the run to `step` agent steps, counted from its start."""
    taken = 0
    names = {ToyVector: "step", PointMassVector: "step", AtariVector: "step_async", DmcVector: "step_async"}
    originals = {kind: getattr(kind, name) for kind, name in names.items()}

    def counted(self: VectorEnv, actions: Any) -> Any:
        nonlocal taken
        taken += self.num_envs
        if taken == step:
            action()
        return originals[type(self)](self, actions)

    for kind, name in names.items():
        monkeypatch.setattr(kind, name, counted)


def run(config: Config) -> int:
    return script.train(config)


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl without the clock, which no two runs share."""
    logged = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "clock"} for row in logged]


def final(run_dir: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What a run leaves: the hash of all that its newest checkpoint holds, and its metrics."""
    manifest = load_latest(run_dir / "checkpoints").path / "manifest.json"
    return json.loads(manifest.read_text()), rows(run_dir)
