"""How far a loop is."""

import io
import logging
import re
import sys
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest

from harness import progress
from harness.progress import LineHandler, Meter, clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which the test moves."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal of 80 columns."""
    written = io.StringIO()
    console = progress._Console(file=written, force_terminal=True, width=80, height=20, color_system=None)
    monkeypatch.setattr(progress, "CONSOLE", console)
    return written


def test_the_time_left_is_that_of_the_rate_since_the_work_began(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    meter = Meter("step", 300, begun=100)
    meter.show(100)
    now[0] += 1
    meter.show(200)  # fast, for nothing was learned
    meter.count_from(200)
    now[0] += 20
    meter.show(204)
    now[0] += 480
    meter.show(304)  # eight copies step together
    assert capsys.readouterr().err.splitlines() == [
        "step 100/300",
        "step 200/300  100/s  0:01 left",
        "step 204/300  0.2/s  8:00 left",
        "step 300/300  0.208/s  0:00 left",
    ]


def test_an_estimate_of_ones_own_takes_the_place_of_the_rate(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    meter = Meter("step", 1_000_000)
    meter.estimate = lambda done: None if done < 50 else 3_600.0 * 26
    for done in (10, 60):
        now[0] += 1
        meter.show(done, {"loss": 0.012345, "score": -20.25, "steps": 123_456.0})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[2] for line in lines] == ["loss 0.0123", "26:00:00 left"]
    assert all(line.endswith("loss 0.0123  score -20.2  steps 123,456") for line in lines)


def test_a_line_comes_at_least_once_a_minute(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    meter, shown = Meter("episode", None), [0.0]
    for done in range(1, 601):
        now[0] += 1
        meter.tick(done)
        if line := capsys.readouterr().err:
            assert re.fullmatch(r"episode \d+  1/s\n", line)
            shown.append(now[0])
    assert max(b - a for a, b in pairwise([*shown, now[0]])) < 60
    assert len(shown) < 30


def test_a_terminal_of_80_columns_shows_a_bar_and_all_losses(now: list[float], terminal: io.StringIO) -> None:
    losses = dict.fromkeys(("loss", "permutation", "rotation", "inverse_dynamics", "reconstruction", "GB"), 0.123)
    with Meter("step", 800_000) as meter:
        now[0] += 100
        meter.show(200_000, losses)
        with Meter("episode", 10) as inner:
            now[0] += 1
            inner.tick(5)
        progress.CONSOLE.print("a line of the log")
        now[0] += 1
        meter.tick(202_000)
    shown = terminal.getvalue()
    rows = [row for row in re.split(r"[\r\n]|\x1b\[[\d;?]*\w", shown) if row.strip()]
    assert all(len(row) <= 80 for row in rows)
    assert "a line of the log" in rows
    assert all(f"{name} 0.123" in shown for name in losses)
    assert re.match(r"step 200,000/800,000 ━+ +2,000/s  5:00 left", rows[0])
    assert any(row.startswith("episode 5/10 ━") for row in rows)
    assert rows[-3].startswith("step 202,000/800,000 ━")


def test_a_line_of_the_log_can_be_copied(terminal: io.StringIO) -> None:
    command = "python evaluate.py checkpoint=" + "runs/[cartpole]_swingup/sac+dbc-" * 4 + "/s0"
    with Meter("step", 10) as meter:
        meter.show(3)
        LineHandler().handle(logging.LogRecord("sidequest", logging.WARNING, "", 0, "%s", (command,), None))
        meter.show(4)
    assert f"WARNING  {command}" in terminal.getvalue()


@pytest.mark.parametrize("error", [BrokenPipeError, OSError])
def test_nobody_reading_ends_nothing(
    error: type[OSError], monkeypatch: pytest.MonkeyPatch, terminal: io.StringIO
) -> None:
    def gone(_: str) -> int:
        raise error

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=gone))
    Meter("step", 3).show(1)
    with Meter("step", 3) as meter:
        meter.show(1)
        monkeypatch.setattr(terminal, "write", gone)
        for done in range(3):
            meter.show(done)
    with Meter("step", 3) as meter:
        meter.show(1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (605, "10:05"), (3_600, "1:00:00"), (360_000, "100:00:00")]
)
def test_a_time_is_read_as_on_a_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
