"""Signals: stop or save at a moment that the program chooses, and never end with a traceback."""

import atexit
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Self, TypeAlias

from harness.streams import occupy_descriptors

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAVING = signal.SIGUSR1
Handler: TypeAlias = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """SIGINT, SIGTERM or SIGHUP arrived where no loop reads a `GracefulExit`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


def guard_imports() -> None:
    """Handle signals during imports: they end the program with one line, and SIGUSR1 does nothing. Call it first."""
    occupy_descriptors()
    _install({**dict.fromkeys(STOPPING, _end), SAVING: _pass})
    atexit.register(_ignore)


def _ignore() -> None:
    """Ignore all signals: at shutdown Python restores their defaults, which would end the process with an error."""
    for number in (*STOPPING, SAVING):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the block when SIGINT, SIGTERM or SIGHUP arrives; SIGUSR1 does nothing."""
    previous = _install({**dict.fromkeys(STOPPING, _raise), SAVING: _pass})
    try:
        yield
    finally:
        _restore(previous)


@contextmanager
def blocked() -> Iterator[None]:
    """Block signals in this thread until the block ends. Processes started in it never get them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [*STOPPING, SAVING])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class GracefulExit:
    """Turns SIGINT, SIGTERM, SIGHUP and SIGUSR1 (save and go on) into flags for the loop to read.

        with GracefulExit() as stop:
            while not stop.requested: ...
        sys.exit(stop.exit_code)

    Enter it in the main thread. A second stopping signal ends the process at once. Leaving restores the previous
    handlers. A KeyboardInterrupt after a requested stop becomes `Interrupted`.
    """

    requested: str | None = None  # "SIGTERM", "SIGINT" or "SIGHUP"
    save_requested: bool = False  # by any of the signals; who saves sets it back to False

    @property
    def exit_code(self) -> int:
        """128 + the number of the signal: 143 after SIGTERM, 130 after SIGINT; 0 without a request."""
        return 128 + signal.Signals[self.requested] if self.requested else 0

    def __enter__(self) -> Self:
        self._previous = _install({**dict.fromkeys(STOPPING, self._stop), SAVING: self._save})
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        _restore(self._previous)
        if kind is KeyboardInterrupt and self.requested:
            raise Interrupted(signal.Signals[self.requested])

    def _stop(self, signum: int, _: FrameType | None) -> None:
        self.requested, self.save_requested = signal.Signals(signum).name, True
        # The kernel acts on a second signal, even while the process is stuck in native code.
        for number in self._previous.keys() - {SAVING}:
            signal.signal(number, signal.SIG_DFL)

    def _save(self, _: int, __: FrameType | None) -> None:
        self.save_requested = True


def _install(handlers: Mapping[signal.Signals, Handler]) -> dict[signal.Signals, Any]:
    """Install the handlers; returns those that they replace. A SIGHUP that nohup ignores stays ignored."""
    return {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN
    }


def _restore(previous: Mapping[signal.Signals, Any]) -> None:
    for number, handler in previous.items():
        # None: installed by native code, which Python cannot put back
        signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _raise(signum: int, _: FrameType | None) -> None:
    raise Interrupted(signum)


def _pass(_: int, __: FrameType | None) -> None:
    """Nothing: there is no run to save."""


def _end(signum: int, _: FrameType | None) -> None:
    with suppress(OSError):
        os.write(2, b"interrupted\n")
    os._exit(128 + signum)
