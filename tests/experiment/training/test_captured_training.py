"""Recorded updates of a training, sampling and priorities included, are those of eager calls."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from capture_help import taped
from run_help import continuous, hard

from agents import Agent, Capture, Captured, Precision
from agents.capture import WARM_UP
from agents.config import AuxSchedule, Conflict, Head, Target
from aux_tasks import TaskConfig
from experiment.training.build import build
from experiment.training.run import Progress, Training, update
from replay import ReplayConfig

MOVED = 12  # updates until all that follows from the step has reached its end
REPLAY = {"capacity": 90, "n_step": 3, "final_n_step": 1, "n_step_steps": MOVED, "beta_steps": MOVED}
FALLING = {"rotation": TaskConfig(weight=1.0, final_weight=0.0, decay_steps=MOVED)}
PAIR = FALLING | {"permutation": TaskConfig()}
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "plain": (hard, {}, {}),
    "quantile": (hard, {"head": Head.quantile, "quantiles": 4}, {}),
    "implicit": (hard, {"head": Head.implicit, "quantiles": 4, "random_shift": 2}, {}),
    "hard target": (hard, {"target": Target.hard, "target_every": 3, "average_tau": 0.1}, {}),
    "alternating": (hard, {"aux_schedule": AuxSchedule.alternating, "target": Target.soft}, {}),
    "projected": (hard, {"conflict": Conflict.pcgrad, "target": Target.soft}, {"aux": PAIR}),
    "bfloat16": (hard, {"precision": Precision.bfloat16}, {}),
    "LAP": (hard, {}, {"replay": ReplayConfig(prioritized=True, lap=True, storage="cuda", **REPLAY)}),
    "uniform": (hard, {}, {"replay": ReplayConfig(storage="cuda", **REPLAY)}),
    "in RAM": (hard, {"random_shift": 2}, {"replay": ReplayConfig(prioritized=True, **REPLAY)}),
    "SAC": (continuous, {"random_shift": 2, "num_shifts": 2}, {}),
    **{
        f"SAC, {task}": (continuous, {"random_shift": 2}, {"aux": {task: TaskConfig()}, "frame_stack": 4})
        for task in ("permutation", "curl", "deepmdp", "dbc", "spr", "moco", "reconstruction", "tracking")
    },
}


def trained(folder: Path, kind: Any, capture: Capture, agent: dict[str, Any], changes: dict[str, Any]) -> Training:
    """A training after enough updates, a step each, to replay every phase."""
    parts = {"aux": FALLING, "replay": ReplayConfig(prioritized=True, storage="cuda", **REPLAY), **changes}
    config = kind(folder, **parts)
    schedule = {"learning_rate": 1e-2, "final_learning_rate": 1e-5, "decay_steps": MOVED, "capture": capture}
    built = build(replace(config, agent=replace(config.agent, **schedule, **agent)))
    built.rollout.reset(1)
    for _ in range(20):
        built.replay.add(*built.rollout.collect())
    meter = SimpleNamespace(count_from=lambda step: None)
    run = Training(config, built, Progress(), folder, SimpleNamespace(meter=meter))  # type: ignore[arg-type]
    for step in range(1, 3 * MOVED + 1):
        run.progress.steps = step
        built.agent.schedule.advance(step)
        update(run)
        built.replay.add(*built.rollout.collect())  # explores by what the agent has learned
    return run


@pytest.mark.parametrize("case", CASES)
def test_replayed_updates_and_actions_are_those_of_eager_calls(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learning rate, weight of the task, length of the windows and importance weights move a third of the time."""
    monkeypatch.setattr("replay.build._check", lambda *_: None)
    kind, agent, changes = CASES[case]
    eager = trained(tmp_path, kind, Capture.off, agent, changes)
    device = SimpleNamespace(type="cuda")

    def captured(self: Agent, function: Any, generators: Any = ()) -> Any:
        return Captured(function, device, enabled=True, generators=generators, reset=self.zero_grad)  # type: ignore[arg-type]

    monkeypatch.setattr(Agent, "captured", captured)
    with taped():
        other = trained(tmp_path, kind, Capture.on, agent, changes)
    programs = [*other.learn._programs.values(), *other.parts.agent.captured_outputs._programs.values()]
    assert all(program.calls > WARM_UP + 2 and program.graph.replays > 2 for program in programs)  # type: ignore[union-attr]
    for left, right in zip(eager.parts.agent.parameters(), other.parts.agent.parameters(), strict=True):
        assert torch.equal(left, right)
    states = [run.parts.replay.state_dict() for run in (eager, other)]
    np.testing.assert_array_equal(*(state["storage"]["action"] for state in states))
    for name, value in states[0]["sampler"].items():
        np.testing.assert_array_equal(value, states[1]["sampler"][name])
    assert eager.window.drain() == other.window.drain()


def test_a_value_that_python_holds_would_be_frozen(tmp_path: Path) -> None:
    factor = [1.0]
    with taped():
        function = Captured(lambda x: x * factor[0], SimpleNamespace(type="cuda"), enabled=True)  # type: ignore[arg-type]
        found = []
        for i in range(8):
            factor[0] = float(i)
            found.append(float(function(torch.ones(()))))
    assert found == [0, 1, 2, 3, 3, 3, 3, 3]


def test_what_cannot_be_recorded_runs_eagerly_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    calls, resets = [], []

    def fails_while_it_is_recorded(x: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == WARM_UP + 1:
            raise RuntimeError("operation not permitted when stream is capturing\nand more lines")
        return x + 1

    reset = {"reset": lambda: resets.append(1)}
    with taped():
        function = Captured(fails_while_it_is_recorded, SimpleNamespace(type="cuda"), enabled=True, **reset)  # type: ignore[arg-type]
        found = [float(function(torch.tensor(float(i)))) for i in range(8)]
    assert found == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [record.getMessage() for record in caplog.records] == [
        "agent.capture: recording failed, running eagerly: operation not permitted when stream is capturing"
    ]
    assert (len(calls), len(resets)) == (9, 1)
