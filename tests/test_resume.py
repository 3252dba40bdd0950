"""A run killed, stopped or hindered anywhere, and continued, ends as if it had not been."""

import itertools
import json
import logging
import multiprocessing
import os
import resource
import signal
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from run_help import (
    COPIES,
    alternating,
    at_step,
    atari,
    continuous,
    exploring,
    final,
    gated,
    hard,
    in_child,
    overlapped,
    run,
    small,
    synthetic,
)
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

import harness.checkpoint
import train as script
from envs import DmcConfig, workers
from experiment.launching.launch import exit_code
from experiment.training import ending
from experiment.training import run as training
from harness.checkpoint import load_latest, save
from harness.seeding import derive


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What an uninterrupted run of a kind leaves."""

    @cache
    def left(kind: Any) -> tuple[dict[str, Any], list[str]]:
        run_dir = tmp_path_factory.mktemp("whole")
        assert run(kind(run_dir)) == 0
        return final(run_dir)

    return left


# 24: learning starts; 48 and 96: the step that ends in a checkpoint; 51: the first after one; 120: the last.
@pytest.mark.parametrize(
    ("kind", "kill"),
    [(small, 27), (small, 51), (hard, 3), (hard, 24), (hard, 48), (hard, 51), (hard, 96), (hard, 120)]
    + [(continuous, kill) for kill in (24, 51, 99)]
    + [(alternating, 51), (gated, 51), (synthetic, 51), (synthetic, 99), (exploring, 51)]
    + [pytest.param(kind, 150, marks=pytest.mark.slow) for kind in (atari, overlapped)],
)
def test_a_killed_run_ends_as_if_it_had_not_been(
    kind: Any, kill: int, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_step(kill, die, patch)
        assert in_child(lambda: run(kind(tmp_path))) == -signal.SIGKILL
    assert in_child(lambda: run(kind(tmp_path))) == 0
    assert final(tmp_path) == whole(kind)


@pytest.mark.parametrize("function", ["write_parts", "_publish", "_prune"])
def test_a_kill_while_a_checkpoint_is_written_loses_nothing_older(
    function: str, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies in the second checkpoint, before `function` is first called there."""

    def die_at_96(*args: Any, **kwargs: Any) -> Any:
        if (tmp_path / "checkpoints" / "step_000000048").exists():
            die()
        return original(*args, **kwargs)

    original = getattr(harness.checkpoint, function)
    with monkeypatch.context() as patch:
        patch.setattr(harness.checkpoint, function, die_at_96)
        assert in_child(lambda: run(hard(tmp_path))) == -signal.SIGKILL
    assert in_child(lambda: run(hard(tmp_path))) == 0
    assert final(tmp_path) == whole(hard)
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))


@pytest.mark.parametrize("kind", [hard, continuous])
def test_a_resumed_run_keeps_no_checkpoint_mapped(kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(kind(tmp_path, steps=48)) == 0
    mapped, learn = [], script.learn

    def noted(*arguments: Any) -> None:
        mapped.append(Path("/proc/self/maps").read_text())
        learn(*arguments)

    monkeypatch.setattr(script, "learn", noted)
    assert run(kind(tmp_path, steps=60)) == 0
    assert str(tmp_path) not in mapped[0]


class KillError(BaseException):  # nothing is saved, as by SIGKILL
    """Ends a run after its log reached the disk, as in a run that is killed minutes later."""


def dead() -> None:
    raise KillError


def test_resuming_leaves_no_step_twice_in_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Event files are read in the order of the second in their names; here they are made within one.
    monkeypatch.setattr(event_file_writer, "time", SimpleNamespace(time=itertools.count(1e9).__next__))
    for kill in (45, 90, 24):  # before the first checkpoint, before the second, and once more after the first
        with monkeypatch.context() as patch:
            at_step(kill, dead, patch)
            with pytest.raises(KillError):
                run(small(tmp_path))
    assert run(small(tmp_path)) == 0
    events = EventAccumulator(str(tmp_path), {"scalars": 0, "images": 0, "tensors": 0}).Reload()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for tag in ("train/loss", "rollout/ep_rew_mean", "repr/effective_rank"):
        expected = [(row["step"], pytest.approx(row[tag], rel=1e-6)) for row in rows if tag in row]
        assert [(event.step, event.value) for event in events.Scalars(tag)] == expected
        assert len(expected) > 1
    assert [e.step for e in events.Scalars("time/fps")] == [row["step"] for row in rows if "train/n_updates" in row]
    assert len(events.Tensors("custom_scalars__config__")) == 1


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.parametrize("moment", ["step", "update", "checkpoint"])
def test_a_signal_saves_and_leaves(
    signum: signal.Signals, code: int, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        if moment == "step":
            at_step(60, lambda: os.kill(os.getpid(), signum), patch)
        else:
            owner, name = {"update": (script, "update"), "checkpoint": (training, "save")}[moment]
            original = getattr(owner, name)

            def signalled(*args: Any, **kwargs: Any) -> Any:
                os.kill(os.getpid(), signum)
                patch.setattr(owner, name, original)
                return original(*args, **kwargs)

            patch.setattr(owner, name, signalled)
        assert run(small(tmp_path)) == code
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert (
        checkpoint.step == checkpoint.state["progress"]["steps"] == {"step": 60, "update": 30, "checkpoint": 48}[moment]
    )
    reached: list[int] = []
    at_step(COPIES, lambda: reached.append(1), monkeypatch)
    assert run(small(tmp_path)) == 0
    assert reached
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)
    assert load_latest(tmp_path / "checkpoints").step == 120


def test_sigusr1_saves_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved, save = [], training.save
    monkeypatch.setattr(training, "save", lambda folder, step, state: saved.append(step) or save(folder, step, state))
    at_step(60, lambda: os.kill(os.getpid(), signal.SIGUSR1), monkeypatch)
    assert run(small(tmp_path)) == 0
    assert saved == [48, 60, 96, 120]


@pytest.mark.parametrize(
    ("number", "patience", "message"),
    [(signal.SIGKILL, 60, "died with exit code -9"), (signal.SIGSTOP, 1, "gave no answer in 1 s and was killed")],
)
def test_a_lost_worker_leaves_a_checkpoint_to_continue_from(
    number: int, patience: float, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def lose_worker() -> None:
        monkeypatch.setattr(workers, "HANG_SECONDS", patience)
        (process,) = multiprocessing.active_children()
        os.kill(process.pid or 0, number)

    config = continuous(tmp_path, env=DmcConfig(num_envs=COPIES, processes=1, size=36))
    with monkeypatch.context() as patch:
        at_step(69, lose_worker, patch)
        assert exit_code(lambda: run(config)) == 2
    (error,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    seed = derive(config.seed, "env", 48)
    assert error == f"error: dm_control worker 0 (copies 0 to 2) {message}; environment seed: {seed}"
    checkpoint = load_latest(tmp_path / "checkpoints")
    assert checkpoint.step == checkpoint.state["progress"]["steps"] == 66
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["step"], last["train/n_updates"]) == (66, checkpoint.state["progress"]["updates"])
    monkeypatch.undo()
    assert run(config) == 0
    assert load_latest(tmp_path / "checkpoints").step == 120


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A run of 96 steps, with checkpoints at 48 and 96."""
    assert run(small(tmp_path, steps=96)) == 0
    return tmp_path


def tear(checkpoint: Path) -> None:
    file = checkpoint / "parts.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def test_a_torn_checkpoint_falls_back_to_the_one_before(finished: Path, caplog: pytest.LogCaptureFixture) -> None:
    expected = final(finished)
    tear(finished / "checkpoints" / "step_000000096")
    caplog.set_level(logging.INFO)
    assert run(small(finished, steps=96)) == 0
    assert "step_000000096" in next(r.message for r in caplog.records if r.levelno == logging.WARNING)
    assert "step 48 of 96" in caplog.text
    assert final(finished) == expected


def test_nothing_but_torn_checkpoints_is_an_error(finished: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for step in (48, 96):
        tear(finished / "checkpoints" / f"step_{step:09d}")
    capfd.readouterr()
    assert exit_code(lambda: run(small(finished))) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "none of the 2 checkpoints is intact" in errors[0]
    assert sorted(p.name for p in (finished / "checkpoints").iterdir()) == ["step_000000048", "step_000000096"]


WRONG = {  # whole and signed, but not of this run
    "KeyError('agent')": lambda state: {**state, "parts": {}},
    "TypeError(\"'int' object is not subscriptable\")": lambda state: {**state, "parts": 3},
    "Progress.__init__() got an unexpected keyword argument 'stpes'": lambda state: {**state, "progress": {"stpes": 3}},
    **{
        f"its progress cannot be: {name} is {value!r}": lambda state, name=name, value=value: (
            {**state, "progress": {**state["progress"], name: value}}
        )
        for name, value in {
            "steps": -1,
            "updates": 10**9,
            "episodes": -3,
            "episodes_logged": 10**9,
            "saved": 10**9,
            "stride": 2.5,
        }.items()
    },
    "its progress cannot be: returns and": lambda state: (
        {**state, "progress": {**state["progress"], "returns": ["1"] * 10}}
    ),
    "of another network: encoder.neck.0.bias is missing there and (256,)": lambda state: (
        {**state, "parts": {**state["parts"], "agent": {}}}
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_checkpoint_of_something_else_is_one_line(
    what: str, finished: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    checkpoints = finished / "checkpoints"
    path = save(checkpoints, 96, WRONG[what](load_latest(checkpoints).state))
    capfd.readouterr()
    assert exit_code(lambda: run(small(finished))) == 2
    (error,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("error:"))
    assert error.startswith(f"error: {path} does not fit this run: ")
    assert what in error


@pytest.mark.parametrize("limit", [10_000, 100_000])  # bytes: not even the exported weights, or no replay
def test_a_full_disk_leaves_the_old_checkpoint_and_training_goes_on(
    limit: int, finished: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    def limited() -> int:
        assert exit_code(lambda: run(small(finished, steps=192))) == 2  # the last step is not saved
        return sum("no checkpoint at step" in record.message for record in caplog.records)

    size = max(f.stat().st_size for f in (finished / "checkpoints").rglob("*") if f.is_file())
    assert size > limit
    at_step(COPIES, fill, monkeypatch)
    assert in_child(limited) == 2  # at 144 and 192
    monkeypatch.undo()
    assert load_latest(finished / "checkpoints").step == 96
    assert run(small(finished, steps=192)) == 0
    assert load_latest(finished / "checkpoints").step == 192


def test_an_interrupted_evaluation_is_played_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(small(tmp_path, steps=48, eval_episodes=3)) == 0
    with monkeypatch.context() as patch:
        patch.setattr(ending, "evaluate", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(small(tmp_path, steps=96, eval_episodes=3))
    assert not (tmp_path / "report.json").exists()  # the one there was is of 48 steps
    assert run(small(tmp_path, steps=96, eval_episodes=3)) == 0
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    report = json.loads((tmp_path / "report.json").read_text())
    assert (last["step"], last["eval/mean_reward"]) == (96, report["summary"]["mean"])


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt
