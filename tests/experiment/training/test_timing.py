"""How long a training still takes, known before it learns."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import run_help

from configs.schema import Config
from experiment.training import timing


@pytest.mark.parametrize("kind", [run_help.hard, run_help.continuous, run_help.alternating])
def test_a_timed_update_changes_nothing(
    kind: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = []

    def counted(run: timing.Training) -> float:
        timed.append(run.progress.steps)
        return seconds(run)

    seconds = timing.time_update
    monkeypatch.setattr(timing, "time_update", counted)
    run_help.run(kind(tmp_path / "timed"))
    assert timed == [12]  # the first row of the log, before learning begins, and then never again
    monkeypatch.setattr(timing, "time_update", lambda run: 1.0)
    run_help.run(kind(tmp_path / "plain"))
    assert run_help.final(tmp_path / "timed") == run_help.final(tmp_path / "plain")


def test_the_time_left_is_known_before_learning_begins(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(timing, "time_update", lambda run: 100.0)

    def tick() -> None:
        now[0] += 12

    run_help.at_step(12, tick, monkeypatch)  # a second each
    milestones = [[-1, 12], [0, 24], [1, 30], [2, 36], [3, 48]]
    run_help.run(replace(run_help.small(tmp_path), steps=36, checkpoint_every=36, milestones=milestones))
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert "step 12/36  1/s  3:44 left" in lines[0]  # 24 steps, and the two updates of the last 12
    assert "step 36/36" in lines[-1]
    assert "0:00 left" in lines[-1]
    expected = [
        record.message for record in caplog.records if "expect" in record.message
    ]  # those that are still to come
    assert expected == ["expect training scores of about 0 after 0 minutes, 1 after 2 minutes, 2 after 4 minutes"]
