"""What a node of a Ray cluster runs, without Ray."""

import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from experiment.launching.ray_tasks import KilledError, run_command

WAITS = "import time; print('up', flush=True); time.sleep(60)"
SAVES = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(143)); {WAITS}"


def ran(folder: Path, code: str) -> int:
    return run_command([sys.executable, "-c", code], str(folder), "output", "stop", {})


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_that_of_the_run(code: int, tmp_path: Path) -> None:
    assert ran(tmp_path, f"raise SystemExit({code})") == code


def test_a_run_that_was_told_to_end_while_it_was_queued_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "stop").touch()
    assert ran(tmp_path, "print('started')") == 128 + signal.SIGTERM
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("code", [SAVES, WAITS])
def test_a_run_that_is_told_to_end_is_not_tried_again(code: str, tmp_path: Path) -> None:
    """Also if the signal comes before the run can handle it."""

    def stop() -> None:
        while not (tmp_path / "output").exists() or "up" not in (tmp_path / "output").read_text():
            time.sleep(0.05)
        (tmp_path / "stop").touch()

    thread = threading.Thread(target=stop)
    thread.start()
    assert ran(tmp_path, code) == 128 + signal.SIGTERM
    thread.join()


def test_a_run_that_something_else_killed_is_tried_again(tmp_path: Path) -> None:
    with pytest.raises(KilledError, match="signal 9"):
        ran(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
