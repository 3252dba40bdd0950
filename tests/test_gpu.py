"""What only a GPU can show: `make test-gpu`."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_help import continuous, hard, run, small

from agents.base import Precision
from analysis.attribution import heat_panels, write_maps
from analysis.evaluation import attribution_targets
from envs import Rollout
from experiment.build import build, load_agent
from replay import Batch, ReplayConfig

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


def first_batch(parts: Any, steps: int = 12) -> Batch:
    """A batch of the toy's first steps, under actions that the device does not choose."""
    env, rng = parts.env, np.random.default_rng(0)
    frame, nobody = env.reset(0), np.zeros(env.num_envs, bool)
    first, over = ~nobody, nobody
    for _ in range(steps):
        action = rng.integers(env.action_space.n, size=env.num_envs)
        step = env.step(action)
        parts.replay.add(frame, first, action, step.reward, step.terminated, step.truncated, ~over)
        frame, first, over = step.frame, step.first, step.game_over
    return parts.replay.sample(8, frozenset())


@pytest.mark.parametrize("storage", ["ram", "cuda"])
@pytest.mark.parametrize("kind", [small, hard, continuous])
def test_a_run_learns_ends_and_continues(kind: Any, storage: str, tmp_path: Path) -> None:
    replay = {"replay": ReplayConfig(capacity=90, n_step=1, prioritized=True, storage=storage)}
    for steps in (60, 120):
        assert run(kind(tmp_path, device=DEVICE, steps=steps, **replay)) == 0
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 120
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))


def test_an_update_is_that_of_a_cpu(tmp_path: Path) -> None:
    losses = []
    for device in ("cpu", DEVICE):
        parts = build(small(tmp_path, device=device))
        losses.append(float(parts.agent.update(first_batch(parts)).metrics["train/loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)  # convolutions may be TF32


@pytest.mark.parametrize("compiled", [False, True])
def test_bfloat16_and_compiled_updates_are_near_those_of_float32(compiled: bool, tmp_path: Path) -> None:
    losses = []
    for changes in ({}, {"precision": Precision.bfloat16, "compile": compiled}):
        config = small(tmp_path, device=DEVICE)
        for name, value in changes.items():
            object.__setattr__(config.agent, name, value)
        parts = build(config)
        losses.append(float(parts.agent.update(first_batch(parts)).metrics["train/loss"]))
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def test_its_agent_is_explained_and_acts_on_a_cpu_as_there(tmp_path: Path) -> None:
    assert run(hard(tmp_path, device=DEVICE)) == 0
    config, there = load_agent(tmp_path, DEVICE)
    _, here = load_agent(tmp_path)
    env = build(config).env
    rollout = Rollout(env, config.frame_stack, config.env.padding)
    rollout.reset(0)
    obs = rollout.observation.pixels
    panels = heat_panels(attribution_targets(there), obs[0], config.frame_stack, 84, samples=2)
    assert len(panels) == 3  # Q, permutation, rotation
    write_maps(tmp_path / "maps", obs[:1], attribution_targets(there), config.frame_stack)
    assert (tmp_path / "maps" / "both_0.png").is_file()
    q = [agent.q_values(torch.from_numpy(obs).to(agent.device)).detach().cpu() for agent in (there, here)]
    torch.testing.assert_close(*q, rtol=1e-2, atol=1e-2)
