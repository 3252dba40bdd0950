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
        if number == 14:
            raise KeyError("nobody foresaw it")
        if number == 99:
            os._exit(7)
        self.total += number
        return self.total, os.getpid()

    def close(self) -> None:
        self.total = 0


def test_both_kinds_answer_in_order() -> None:
    shares = Local(partial(Adder, 1)), Worker(partial(Adder, 1), "worker 0")
    for share in shares:
        share.ask("add", 2)
    totals, pids = zip(*(share.answer() for share in shares), strict=True)
    assert totals == (3, 3)
    assert (pids[0] == os.getpid()) != (pids[1] == os.getpid())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):  # they are the parent's
        os.kill(pids[1], number)
    for share in shares:
        share.ask("add", 4)
    assert [share.answer() for share in shares] == [(7, pid) for pid in pids]
    for share in shares * 2:
        share.close()
    assert multiprocessing.active_children() == []


def test_errors_of_the_work_come_back_and_the_process_goes_on() -> None:
    bad, worker = Worker(partial(Adder, -1), "worker 0"), Worker(partial(Adder, 1), "worker 2")
    with pytest.raises(ValueError, match="total is -1"):  # a bad construction is the caller's mistake
        bad.answer()
    worker.ask("add", 13)
    with pytest.raises(WorkerError, match=r"^worker 2 failed: RuntimeError: no$"):
        worker.answer()
    worker.ask("add", 14)
    with pytest.raises(WorkerError, match=r"^worker 2 failed: KeyError: .*foresaw.*test_workers.py:\d+"):
        worker.answer()
    worker.ask("add", 1)
    assert worker.answer()[0] == 2
    worker.ask("add", 99)
    with pytest.raises(WorkerError, match=r"^worker 2 died with exit code 7$"):
        worker.answer()
    bad.close()
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


STARTED = """
import time
from functools import partial
from envs.workers import Worker
from test_workers import Adder
workers = [Worker(partial(Adder, 1), "worker") for _ in range(2)]
print(flush=True)
{then}
"""


@pytest.mark.parametrize("then", ["time.sleep(60)", "for worker in workers: worker.close()", "workers = []"])
def test_workers_that_are_starting_end_in_silence(then: str, tmp_path: Path) -> None:
    """By Ctrl-C, which reaches them all, or because they are not needed any more."""
    script = "from harness.signals import guard_imports\nguard_imports()" + STARTED.format(then=then)
    command = [sys.executable, "-c", script]
    run = subprocess.Popen(command, env=PATH, stdout=-1, stderr=-1, text=True, start_new_session=True)
    assert run.stdout
    assert run.stdout.readline() == "\n"
    if "sleep" in then:
        os.killpg(run.pid, signal.SIGINT)
    out, err = run.communicate(timeout=60)
    assert (out, err) == ("", "interrupted\n" if "sleep" in then else "")


PATH = os.environ | {"PYTHONPATH": os.pathsep.join([os.getcwd(), os.path.dirname(__file__)])}


SCRIPT = """
import os
from functools import partial
from envs.workers import Worker
from test_workers import Adder
assert __name__ == "__main__", "imported again"  # with all that a training imports a worker would be twice as large
worker = Worker(partial(Adder, 1), "worker 0")
worker.ask("add", 2)
print(*worker.answer(), flush=True)
{end}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("worker.close()", 0), ("os.kill(os.getpid(), 9)", -9)])
def test_a_worker_does_not_import_the_script_nor_outlive_it(end: str, code: int, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT.format(end=end))
    run = subprocess.run([sys.executable, tmp_path / "script.py"], env=PATH, capture_output=True, text=True)
    total, pid = map(int, run.stdout.split())
    assert (run.returncode, run.stderr, total) == (code, "", 3)
    for _ in range(100):
        if not os.path.exists(f"/proc/{pid}"):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the worker lives on")
