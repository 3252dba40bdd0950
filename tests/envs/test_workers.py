import multiprocessing
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from envs import workers
from envs.workers import Local, Worker, WorkerError


class Adder:
    """Picklable work for a process."""

    def __init__(self, total: int) -> None:
        if total < 0:
            raise ValueError(f"total is {total}")
        self.total = total

    def add(self, number: int) -> tuple[int, int]:
        if number == 13:
            raise RuntimeError("no")
        if number == 99:
            os._exit(7)
        self.total += number
        return self.total, os.getpid()

    def close(self) -> None:
        self.total = 0


def test_both_kinds_answer_in_order() -> None:
    local, worker = Local(partial(Adder, 1)), Worker(partial(Adder, 1), "worker 0")
    for share in (local, worker):
        share.ask("add", 2)
    assert [share.answer()[0] for share in (local, worker)] == [3, 3]
    for share in (local, worker):
        share.ask("add", 4)
    totals, pids = zip(*(share.answer() for share in (local, worker)), strict=True)
    assert totals == (7, 7)
    assert (pids[0] == os.getpid()) != (pids[1] == os.getpid())
    for share in (local, worker, local, worker):
        share.close()
    assert multiprocessing.active_children() == []


def test_errors_of_the_work_come_back_and_the_process_goes_on() -> None:
    worker = Worker(partial(Adder, 1), "worker 2")
    worker.ask("add", 13)
    with pytest.raises(WorkerError, match=r"^worker 2 failed: RuntimeError: no$"):
        worker.answer()
    worker.ask("add", 1)
    assert worker.answer()[0] == 2
    worker.ask("add", 99)
    with pytest.raises(WorkerError, match=r"^worker 2 died with exit code 7$"):
        worker.answer()
    worker.close()


def test_a_bad_construction_is_the_callers_mistake() -> None:
    worker = Worker(partial(Adder, -1), "worker 0")
    with pytest.raises(ValueError, match="total is -1"):
        worker.answer()
    worker.close()
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("number", "patience", "message"),
    [(signal.SIGKILL, 60, "died with exit code -9"), (signal.SIGSTOP, 0.5, r"gave no answer in 0\.5 s and was killed")],
)
def test_a_dead_or_stopped_process_is_named(
    number: int, patience: float, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = Worker(partial(Adder, 1), "worker 1 (copies 4 to 7)")
    worker.ask("add", 0)
    _, pid = worker.answer()
    monkeypatch.setattr(workers, "HANG_SECONDS", patience)
    os.kill(pid, number)
    worker.ask("add", 0)
    with pytest.raises(WorkerError, match=rf"^worker 1 \(copies 4 to 7\) {message}"):
        worker.answer()
    worker.close()
    assert multiprocessing.active_children() == []


def test_signals_of_the_terminal_are_the_parents() -> None:
    worker = Worker(partial(Adder, 1), "worker 0")
    worker.ask("add", 0)
    _, pid = worker.answer()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
    worker.ask("add", 1)
    assert worker.answer() == (2, pid)
    worker.close()


UNGUARDED = """
from functools import partial
from envs.workers import Worker
from test_workers import Adder
assert __name__ == "__main__", "imported again"
worker = Worker(partial(Adder, 1), "worker 0")
worker.ask("add", 2)
assert worker.answer()[0] == 3
worker.close()
"""
PATH = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.path.dirname(__file__)])}


def test_a_worker_does_not_import_the_script(tmp_path: Path) -> None:
    """With all that a training imports it would be twice as large."""
    (tmp_path / "script.py").write_text(UNGUARDED)
    run = subprocess.run([sys.executable, tmp_path / "script.py"], env=PATH, capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")


SCRIPT = """
import os, sys
from functools import partial
from envs.workers import Worker
from test_workers import Adder
if __name__ == "__main__":
    worker = Worker(partial(Adder, 1), "worker 0")
    worker.ask("add", 0)
    sys.stdout.write(str(worker.answer()[1]))
    sys.stdout.flush()
    {end}
"""


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), 9)"])
def test_no_process_outlives_the_parent(end: str) -> None:
    script = [sys.executable, "-c", SCRIPT.format(end=end)]
    run = subprocess.run(script, env=PATH, capture_output=True, text=True)
    assert run.stderr == ""
    for _ in range(100):
        if not os.path.exists(f"/proc/{int(run.stdout)}"):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker lives on")
