"""A request to stop is a flag; a second one is obeyed at once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from checkpoint_help import in_child

from harness.signals import STOPPING, GracefulExit, Interrupted, blocked, guard_imports, interruptible
from sidequest.__main__ import COMMANDS


def child_status(*signals: signal.Signals) -> int:
    """How a forked process ends that gets `signals` inside GracefulExit: its exit code, or minus the signal."""

    def end() -> int:
        with GracefulExit() as stop:
            for signum in signals:
                os.kill(os.getpid(), signum)
        return stop.exit_code

    return in_child(end)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_the_first_signal_sets_a_flag_and_the_handlers_return(signum: signal.Signals, code: int) -> None:
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in watched]
    with GracefulExit() as stop:
        assert (stop.requested, stop.exit_code) == (None, 0)
        os.kill(os.getpid(), signum)
        assert (stop.requested, stop.exit_code, stop.save_requested) == (signum.name, code, True)
        assert [signal.getsignal(number) for number in watched] != before
    assert stop.exit_code == code
    assert [signal.getsignal(number) for number in watched] == before


def test_sigusr1_asks_for_a_checkpoint_again_and_again() -> None:
    with GracefulExit() as stop:
        for _ in range(3):
            assert not stop.save_requested
            os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.save_requested
            stop.save_requested = False
        assert stop.requested is None
    with GracefulExit() as other:
        assert not other.save_requested


def test_the_second_signal_ends_the_process() -> None:
    assert child_status(signal.SIGTERM) == 143
    assert child_status(signal.SIGTERM, signal.SIGTERM) == -signal.SIGTERM
    assert child_status(signal.SIGTERM, signal.SIGINT) == -signal.SIGINT
    assert child_status(signal.SIGHUP, signal.SIGINT) == -signal.SIGINT
    assert child_status(signal.SIGINT, signal.SIGUSR1) == 130


@pytest.mark.parametrize("signum", STOPPING)
def test_outside_of_a_loop_a_signal_interrupts_and_sigusr1_does_nothing(signum: signal.Signals) -> None:
    before = [signal.getsignal(number) for number in (*STOPPING, signal.SIGUSR1)]
    with interruptible():
        os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(Interrupted) as stopped:
            os.kill(os.getpid(), signum)
    assert stopped.value.exit_code == 128 + signum
    assert isinstance(stopped.value, KeyboardInterrupt)
    assert [signal.getsignal(number) for number in (*STOPPING, signal.SIGUSR1)] == before


@pytest.mark.parametrize("signum", STOPPING)
def test_an_interrupt_on_request_keeps_the_number_of_the_signal(signum: signal.Signals) -> None:
    with pytest.raises(Interrupted) as stopped, GracefulExit() as stop:  # noqa: PT012 — as an evaluation does
        os.kill(os.getpid(), signum)
        if stop.requested:
            raise KeyboardInterrupt
    assert stopped.value.exit_code == 128 + signum


@pytest.mark.parametrize("handled", [interruptible, GracefulExit])
def test_what_nohup_ignores_stays_ignored(handled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with handled():
            os.kill(os.getpid(), signal.SIGHUP)
            if handled is GracefulExit:
                os.kill(os.getpid(), signal.SIGTERM)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_process_started_while_signals_are_blocked_gets_none(capfd: pytest.CaptureFixture[str]) -> None:
    with blocked():
        process = subprocess.Popen(["sleep", "60"])
    reached = []
    with pytest.raises(Interrupted), interruptible():  # noqa: PT012 — this process gets it when the block ends
        with blocked():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # another thread would take it
            reached.append("within")
        reached.append("after")
    assert reached == ["within"]
    for signum in (*STOPPING, signal.SIGUSR1):
        process.send_signal(signum)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.2)
    process.kill()
    process.wait()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_guards_its_imports(command: str) -> None:
    first = [
        Path(path).read_text().partition('"""\n\n')[2] for path in (f"{command}.py", "experiment/launching/start.py")
    ]
    assert first[0].startswith(
        'if __name__ == "__main__":\n    from experiment.launching.start import start\n\n    start('
    )
    assert first[1].startswith("import sys\n\nfrom harness.signals import guard_imports\n\n\n")
    assert first[1].index("    guard_imports()") < first[1].index("    from experiment.launching.launch import")


@pytest.mark.parametrize(("signum", "code"), [(s, 128 + s) for s in STOPPING] + [(signal.SIGUSR1, 0)])
def test_during_imports_a_signal_is_one_line(
    signum: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def imports() -> int:
        guard_imports()
        os.kill(os.getpid(), signum)
        return 0

    assert in_child(imports) == code
    assert capfd.readouterr().err == ("interrupted\n" if code else "")


@pytest.mark.parametrize("signum", [*STOPPING, signal.SIGUSR1])
def test_no_signal_kills_an_interpreter_that_is_ending(signum: signal.Signals) -> None:
    code = "from harness.signals import guard_imports\nguard_imports()\nimport numpy\nprint('done', flush=True)"
    for milliseconds in (3, 8, 13, 18):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdout
        process.stdout.readline()
        time.sleep(milliseconds / 1000)
        process.send_signal(signum)
        process.communicate(timeout=60)
        assert process.returncode in ((0,) if signum == signal.SIGUSR1 else (0, 128 + signum))
