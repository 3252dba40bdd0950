"""What only a GPU can show: `make test-gpu`."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from run_help import at_step, continuous, hard, run, small
from safetensors.torch import load_file

from agents import Capture, Precision
from agents.config import Head, Target
from analysis.attribution import heat_panels, write_maps
from analysis.episode import attribution_targets
from aux_tasks import TaskConfig
from envs import Rollout
from experiment.training.build import build, load_agent
from experiment.training.run import Progress, Training, update
from replay import Batch, ReplayConfig

pytestmark = pytest.mark.gpu
DEVICE = "cuda"
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # for `deterministic`


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Kernels that repeat bit for bit, where there are such."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


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


# --- graphs ---

DRAWN = {"capacity": 90, "prioritized": True, "beta_steps": 100, "storage": "cuda"}
AGENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (hard, {"head": Head.plain}),
    "quantile": (hard, {"head": Head.quantile, "random_shift": 2}),
    "implicit": (hard, {"head": Head.implicit, "random_shift": 2}),
    "hard target": (hard, {"target": Target.hard, "target_every": 7, "average_tau": 0.1}),
    "bfloat16": (hard, {"precision": Precision.bfloat16}),
    "SAC": (continuous, {"random_shift": 2}),
}
TASKS = ("rotation", "permutation", "curl", "deepmdp", "dbc", "spr", "reconstruction", "moco", "byol", "temporal_cpc")


def trained(tmp_path: Path, kind: Any, capture: Capture, updates: int, **changes: Any) -> Training:
    """A training after so many updates, a step each, with random actions alone in its replay."""
    agent = {"final_learning_rate": 1e-5, "decay_steps": 100, "capture": capture} | changes.pop("agent", {})
    config = kind(tmp_path, device=DEVICE, **{"replay": ReplayConfig(n_step=1, **DRAWN), **changes})
    config = replace(config, agent=replace(config.agent, **agent))
    parts = build(config)
    parts.rollout.reset(1)
    for _ in range(20):
        parts.replay.add(*parts.rollout.collect())
    meter = SimpleNamespace(count_from=lambda step: None)
    done = Training(config, parts, Progress(), tmp_path, SimpleNamespace(meter=meter))  # type: ignore[arg-type]
    for _ in range(updates):
        done.progress.steps += 1
        parts.agent.schedule.advance(done.progress.steps)
        update(done)
    return done


def assert_recorded(run: Training) -> None:
    assert run.learn._records
    assert all(program.graph for program in run.learn._programs.values())


def assert_equal_trainings(one: Training, other: Training) -> None:
    weights = [run.parts.agent.state_dict() for run in (one, other)]
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-5, atol=1e-5, msg=name)
    left, right = (run.parts.replay.state_dict()["sampler"] for run in (one, other))
    np.testing.assert_allclose(left["priority"], right["priority"], rtol=1e-4)
    one_log, other_log = (run.window.drain() for run in (one, other))
    assert one_log == pytest.approx(other_log, rel=1e-3, abs=1e-5)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", AGENTS)
def test_200_captured_updates_are_eager_ones(name: str, tmp_path: Path) -> None:
    """Learning rate, weight of the task, length of the windows and importance weights move up to update 100."""
    kind, agent = AGENTS[name]
    task = {"rotation": TaskConfig(weight=1.0, final_weight=0.0, decay_steps=100)}
    replay = ReplayConfig(n_step=3, final_n_step=1, n_step_steps=100, **DRAWN)
    one, other = (
        trained(tmp_path, kind, c, 200, agent=agent, aux=task, replay=replay) for c in (Capture.off, Capture.on)
    )
    assert_recorded(other)
    assert_equal_trainings(one, other)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("task", TASKS)
def test_tasks_are_captured(task: str, tmp_path: Path) -> None:
    changes = {"aux": {task: TaskConfig()}, "frame_stack": 4}
    runs = [trained(tmp_path, continuous, capture, 20, **changes) for capture in (Capture.off, Capture.on)]
    assert_recorded(runs[1])
    assert_equal_trainings(*runs)


def test_each_replay_draws_anew_and_acting_follows_the_weights(tmp_path: Path) -> None:
    run = trained(tmp_path, hard, Capture.on, 20)
    parts, obs = run.parts, run.parts.rollout.observation  # type: ignore[attr-defined]
    drawn = [update(run).index.tolist() for _ in range(3)]
    assert drawn[0] != drawn[1] != drawn[2]
    shift = parts.agent.captured(parts.agent.augment, [parts.streams.augment])
    frames = torch.randint(256, (8, *parts.agent.encoder.obs_shape), dtype=torch.uint8, device=DEVICE)
    shifted = [shift(frames).clone() for _ in range(6)]
    assert not any(torch.equal(shifted[i], shifted[i + 1]) for i in range(5))
    pixels = torch.from_numpy(obs.pixels).to(DEVICE)
    for _ in range(6):
        with torch.no_grad():
            torch.testing.assert_close(parts.agent.captured_outputs(pixels, None), parts.agent.policy_outputs(pixels))
        for _ in range(5):
            update(run)


def test_what_cannot_be_recorded_runs_eagerly_and_is_told_once(tmp_path: Path, caplog: Any) -> None:
    agent = build(
        replace(small(tmp_path, device=DEVICE), agent=replace(small(tmp_path).agent, capture=Capture.on))
    ).agent
    draw = torch.Generator(DEVICE).manual_seed(0)
    function = agent.captured(lambda x: torch.rand(3, generator=draw, device=DEVICE) + x * x.sum().item(), [draw])
    x = torch.ones(3, device=DEVICE)
    values = [float(function(x)[0]) for _ in range(8)]
    assert all(3 <= value < 4 for value in values)
    assert len({*values}) == 8
    assert caplog.text.count("runs eagerly") == 1
    assert float((x + 1).sum()) == 6  # the device still works


class KillError(BaseException):
    """Ends a run, and nothing is saved."""


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("capture", [Capture.off, Capture.on])
@pytest.mark.parametrize("kind", [hard, continuous])
def test_a_killed_run_ends_as_if_it_had_not_been(
    kind: Any, capture: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dead() -> None:
        raise KillError

    replay, weights = ReplayConfig(n_step=1, **DRAWN), []
    for name in ("whole", "killed"):
        config = kind(tmp_path / name, device=DEVICE, replay=replay)
        config = replace(config, agent=replace(config.agent, capture=capture))
        if name == "killed":
            with monkeypatch.context() as patch:
                at_step(75, dead, patch)
                with pytest.raises(KillError):
                    run(config)
        assert run(config) == 0
        weights.append(load_file(tmp_path / name / "agent.safetensors"))
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name
