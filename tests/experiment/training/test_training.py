"""Progress: how many updates are due, and when."""

from dataclasses import replace
from pathlib import Path

import pytest
import run_help

from envs import PointMassConfig
from experiment.training.run import Progress


@pytest.mark.parametrize(
    ("ratio", "steps", "updates"),
    [
        (10, 3, 30),
        (0.1, 30, 3),
        (1 / 3, 30, 10),
        (1 / 6, 36, 6),
        (0.25, 7, 1),
        (0.29, 100, 29),
        (0.7, 10, 7),
        (2, 0, 0),
    ],
)
def test_as_many_updates_are_due_as_the_ratio_says(ratio: float, steps: int, updates: int, tmp_path: Path) -> None:
    config = replace(run_help.small(tmp_path), learning_starts=24, replay_ratio=ratio)
    assert Progress(steps=24 + steps).updates_due(config) == updates
    assert Progress(steps=24 + steps, updates=updates).updates_due(config) == 0
    assert Progress(steps=20).updates_due(config) == 0


@pytest.mark.parametrize(("steps", "every", "due"), [(12, 12, True), (13, 12, True), (15, 12, False), (12, 0, False)])
def test_a_multiple_that_the_last_step_reached_or_crossed_is_due(steps: int, every: int, due: bool) -> None:
    assert Progress(steps=steps, stride=3).due(every) is due


@pytest.mark.parametrize(
    ("every", "length", "told"),
    [
        (48, 20, True),  # 16 steps for each of three copies
        (48, 9, False),
        (96, 20, False),
        (1_000, 200, False),  # only the end of the run cuts
    ],
)
def test_checkpoints_that_cut_every_episode_are_told_once(
    every: int, length: int, told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    env = PointMassConfig(num_envs=run_help.COPIES, time_limit=length)
    config = run_help.continuous(tmp_path, env=env, aux={}, checkpoint_every=every, steps=192, learning_starts=1_000)
    assert run_help.run(config) == 0
    warnings = [record.message for record in caplog.records if f"checkpoint_every={every}" in record.message]
    assert len(warnings) == told
    assert all("3 times" in line and "16 steps" in line for line in warnings)
