"""Whatever ends a run, what it learned is saved first if it is finite, and one line says what happened."""

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_help import COPIES, at_step, continuous, hard, in_child, run, small
from test_pretrain import config as pretraining

import agents.dqn
import agents.sac
import pretrain
import train as script
from envs import EnvError, PointMassVector, ToyVector
from experiment.folders.weights import read_weights
from experiment.launching.launch import exit_code
from experiment.training import monitoring, rescue
from experiment.training import run as training
from experiment.training.build import load_agent
from harness.checkpoint import CheckpointError, load_latest
from harness.metrics import read_rows

ERRORS = [EnvError("lost"), ValueError("wrong"), OSError(5, "broken"), MemoryError("full"), KeyError("bug")]


def error_line(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    return line.removeprefix("error: ")


def poisoned(suffix: str, value: float, update: Callable[..., Any]) -> Callable[..., Any]:
    """An update that leaves `value` in the first parameter whose name ends with `suffix`, from the fifth on."""

    def poison(agent: Any, batch: Any) -> Any:
        done = update(agent, batch)
        if agent.updates > 5:
            tensor = next(tensor for name, tensor in agent.state_dict().items() if name.endswith(suffix))
            tensor.fill_(value)
        return done

    return poison


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_what_was_learned_before_an_error_is_saved(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise error

    with monkeypatch.context() as patch:
        at_step(69, fail, patch)
        with pytest.raises(type(error)):
            run(small(tmp_path))
    assert load_latest(tmp_path / "checkpoints").step == 66
    assert run(small(tmp_path)) == 0
    assert load_latest(tmp_path / "checkpoints").step == 120


@pytest.mark.parametrize("where", ["log_diagnosis", "log_evaluation", "log_metrics", "update"])
def test_an_error_anywhere_in_the_loop_is_one(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, original = [], getattr(script, where)

    def fail(run: Any, *args: Any) -> Any:
        calls.append(run.progress.steps)
        if run.progress.steps == 60:
            raise LookupError("bug")
        return original(run, *args)

    with monkeypatch.context() as patch:
        patch.setattr(script, where, fail)
        with pytest.raises(LookupError, match="bug"):
            run(small(tmp_path, eval_every=60, eval_every_episodes=1))
    assert load_latest(tmp_path / "checkpoints").step == 60


def test_an_error_within_an_update_leaves_a_checkpoint_to_resume_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, learn = [], agents.dqn.DQN.learn

    def fail(self: Any, batch: Any) -> Any:
        calls.append(self.updates)
        if len(calls) == 3:
            raise LookupError("bug")
        return learn(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(agents.dqn.DQN, "learn", fail)
        with pytest.raises(LookupError, match="bug"):
            run(small(tmp_path))
    assert load_latest(tmp_path / "checkpoints")
    assert run(small(tmp_path)) == 0


def test_a_signal_ends_an_evaluation_during_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate, played = monitoring.evaluate, []

    def interrupted(*args: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        played.append(evaluate(*args, **options))

    monkeypatch.setattr(monitoring, "evaluate", interrupted)
    assert run(small(tmp_path, eval_every=60, eval_every_episodes=1_000)) == 128 + signal.SIGTERM
    assert not played
    assert not any("eval/mean_reward" in row for row in read_rows(tmp_path / "metrics.jsonl")[0])
    monkeypatch.undo()
    assert run(small(tmp_path, eval_every=60, eval_every_episodes=1)) == 0
    evaluated = [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")[0] if "eval/mean_reward" in row]
    assert evaluated == [63, 120]  # where it was saved, and at the next multiple


# Where a NaN shows first: an action, the singular values of a diagnosis, a weight that only the checkpoint holds.
POISON = {
    "actor": (continuous, {"replay": replace(continuous(Path()).replay, prioritized=False)}, "actor.layers.0.weight"),
    "features": (small, {}, "encoder.neck.0.weight"),
    "average": (hard, {}, "average.head.value.weight"),
    "target": (continuous, {}, "target_encoder.neck.0.weight"),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("what", POISON)
def test_what_is_not_finite_is_named_and_never_saved(
    what: str, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    kind, changes, suffix = POISON[what]
    config = kind(tmp_path, **changes)
    agent = agents.sac.SAC if kind is continuous else agents.dqn.DQN
    with monkeypatch.context() as patch:
        patch.setattr(agent, "learn", poisoned(suffix, value, agent.learn))
        assert exit_code(lambda: run(config)) == 2
    line = error_line(capfd.readouterr().err)
    assert "nan at step" in line or "inf at step" in line
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert checkpoint.step == 48
    assert f"the last good checkpoint is {checkpoint.path}" in line
    for tensor in load_agent(tmp_path)[1].state_dict().values():
        assert tensor.isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("kind", [small, continuous])
def test_a_reward_that_is_not_finite_is_refused_where_it_enters(
    kind: Any, value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    vector = PointMassVector if kind is continuous else ToyVector
    step_of, steps = vector.step, []

    def step(self: Any, action: Any) -> Any:
        result = step_of(self, action)
        steps.append(None)
        return replace(result, reward=np.array([0, value, 0], np.float32)) if len(steps) == 23 else result

    with monkeypatch.context() as patch:
        patch.setattr(vector, "step", step)
        assert exit_code(lambda: run(kind(tmp_path))) == 2
    assert error_line(capfd.readouterr().err).startswith(f"copy 1 of the environment gave a reward of {value}")
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert checkpoint.step == 22 * COPIES
    assert np.isfinite(checkpoint.state["parts"]["replay"]["storage"]["reward"]).all()
    assert run(kind(tmp_path)) == 0


def test_a_run_whose_last_steps_could_not_be_saved_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise CheckpointError("disk full")

    with monkeypatch.context() as patch:
        at_step(54, lambda: patch.setattr(training, "save", refuse), patch)
        with pytest.raises(CheckpointError, match="saved up to step 48"):
            run(small(tmp_path))
    assert run(small(tmp_path)) == 0


def test_an_error_while_saving_does_not_hide_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(text: str) -> Callable[..., None]:
        def raising(*_: Any) -> None:
            raise ValueError(text)

        return raising

    monkeypatch.setattr(rescue, "save_training", fail("second"))
    at_step(69, fail("first"), monkeypatch)
    with pytest.raises(ValueError, match="first"):
        run(small(tmp_path))
    assert "is lost: second" in caplog.text


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_and_leaves(signum: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_step(60, lambda: os.kill(os.getpid(), signum), monkeypatch)
    assert in_child(lambda: run(small(tmp_path))) == 128 + signum
    assert load_latest(tmp_path / "checkpoints").step == 60


@pytest.mark.parametrize(("value", "step"), [(None, 16), (float("nan"), 10), (float("inf"), 10)])
def test_a_pretraining_ends_in_the_same_way(
    value: float | None, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = pretrain.update

    def fail(parts: Any, batch: Any, at: int) -> Any:
        if at == 16:
            if value is None:
                raise LookupError("bug")
            next(parts.encoder.parameters()).data.fill_(value)
        return update(parts, batch, at)

    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "update", fail)
        with pytest.raises((LookupError, RuntimeError)) as told:
            pretrain.pretrain(pretraining(tmp_path, "run", "bigan"))
    checkpoint = load_latest(tmp_path / "run" / "checkpoints")
    assert checkpoint.step == step
    assert ("last good checkpoint is" in str(told.value)) == (value is not None)
    weights, _ = read_weights(tmp_path / "run" / "encoder.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert pretrain.pretrain(pretraining(tmp_path, "run", "bigan")) == 0
