"""A request to stop is a flag; a second one is obeyed at once."""

import os
import signal

import pytest
from checkpoint_help import in_child

from harness.signals import GracefulExit


def child_status(*signals: signal.Signals) -> int:
    """How a forked process ends that gets `signals` inside GracefulExit: its exit code, or minus the signal."""

    def end() -> int:
        with GracefulExit() as stop:
            for signum in signals:
                os.kill(os.getpid(), signum)
        return stop.exit_code

    return in_child(end)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_first_signal_sets_a_flag_and_the_handlers_return(signum: signal.Signals, code: int) -> None:
    watched = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
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
    assert child_status(signal.SIGINT, signal.SIGUSR1) == 130
