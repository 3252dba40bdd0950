"""A task that is solved early is said to teach no more."""

from collections.abc import Mapping

import pytest

from aux_tasks import TASKS
from aux_tasks.config import options_of
from experiment.training.solved import SolvedTasks, skill

Rows = list[Mapping[str, float]]


def told(task: str, rows: Rows, caplog: pytest.LogCaptureFixture, steps: int = 1_000) -> list[str]:
    solved = SolvedTasks([task], steps)
    for i, row in enumerate(rows, start=1):
        solved.check(100 * i, {f"aux/{task}/{name}": value for name, value in row.items()} | {"train/loss": 1.0})
    return [record.message for record in caplog.records]


PERFECT = {"accuracy": 1.0, "chance": 0.25, "loss": 8e-6}


@pytest.mark.parametrize(
    "rows",
    [
        [PERFECT] * 4,
        [{"accuracy": 0.25, "chance": 0.25}, *[{"accuracy": 0.995, "chance": 0.25}] * 3],
        [PERFECT, {}, PERFECT, {}, PERFECT],  # rows without an update
        [{"error_ratio": 0.004}] * 3,
    ],
)
def test_a_solved_task_is_told_once(rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told("rotation", rows * 2, caplog, steps=10_000)
    assert line.startswith("aux.rotation is solved")
    assert "aux.rotation.weight" in line
    assert "aux.rotation.options.crop_rows=" in line


@pytest.mark.parametrize(
    "rows",
    [
        [{"accuracy": 0.26, "chance": 0.25, "loss": 1.38}] * 9,
        [{"accuracy": 0.99, "chance": 0.99, "loss": 0.01}] * 9,  # nearly always the same answer
        [{"accuracy": 1.0, "chance": 1.0, "loss": 0.0}] * 9,  # always
        [{"error_ratio": 1.0}] * 9,
        [{"loss": 0.0}] * 9,  # of a loss nobody knows the scale
        [PERFECT, PERFECT, {"accuracy": 0.5, "chance": 0.25}] * 3,
        [*[{"accuracy": 0.9, "chance": 0.25}] * 5, *[PERFECT] * 4],  # in the second half of the run
        [{"accuracy": 0.0, "chance": 0.25, "error_ratio": 0.0}] * 9,
    ],
)
def test_others_are_not(rows: Rows, caplog: pytest.LogCaptureFixture) -> None:
    assert told("rotation", rows, caplog) == []


@pytest.mark.parametrize("task", TASKS)
def test_what_is_advised_exists(task: str, caplog: pytest.LogCaptureFixture) -> None:
    (line,) = told(task, [PERFECT] * 3, caplog)
    assert ("crop_rows" in line) == ("crop_rows" in options_of(TASKS[task]))


def test_skill_is_between_a_guess_and_no_error() -> None:
    assert skill("x", {"aux/x/accuracy": 0.4, "aux/x/chance": 0.2}) == pytest.approx(0.25)
    assert skill("x", {"aux/x/error_ratio": 0.75}) == 0.25
    assert skill("x", {"aux/y/accuracy": 1.0, "aux/y/chance": 0.2}) is None
