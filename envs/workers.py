"""An object in a process of its own, or in this one, called in the same way; a dead or stuck process is an error."""

import atexit
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, Protocol

from harness.errors import describe
from harness.signals import blocked

HANG_SECONDS = 120.0  # without an answer, the start of the process included
CLOSE_SECONDS = 5.0  # to end by itself

SPAWN = multiprocessing.get_context("spawn")  # a fork would copy threads and OpenGL


class Closable(Protocol):
    """What can be served: its methods are called by name, `close` last."""

    def close(self) -> None:
        """Free everything."""


class WorkerError(RuntimeError):
    """A worker died, hangs, or failed."""


class Local:
    """The object in this process."""

    def __init__(self, build: Callable[[], Closable]) -> None:
        self._target: Closable | None = build()

    def ask(self, method: str, *arguments: Any) -> None:
        """Call a method."""
        self._answer = getattr(self._target, method)(*arguments)

    def answer(self) -> Any:
        """What it returned."""
        return self._answer

    def close(self) -> None:
        """Free the object; may be repeated."""
        if self._target is not None:
            self._target.close()
        self._target = None


class Worker:
    """The object in a new process. Several can be asked before the first one answers.

    Args:
        build: makes the object there; picklable, and from a module, not from the script that runs. A ValueError or
            RuntimeError of its making is raised by `answer`.
        name: for messages, such as "worker 2 (copies 4 to 7)".
    """

    def __init__(self, build: Callable[[], Closable], name: str) -> None:
        self._name = name
        self._pipe, far_end = SPAWN.Pipe()
        self._process = SPAWN.Process(target=_serve, args=(build, far_end), daemon=True)
        with blocked():
            resource_tracker.ensure_running()  # it would let SIGINT and SIGTERM through again
        with blocked(), _no_script():  # signals are meant for the parent, which closes the pipe when it is ready
            self._process.start()
        self._answered = False
        self._pending = 1  # answers: the first says whether `build` worked
        far_end.close()  # so that its death is the end of the pipe
        atexit.register(self.close)  # before multiprocessing waits for its daemons

    def ask(self, method: str, *arguments: Any) -> None:
        """Call a method; return at once."""
        self._pending += 1
        with suppress(BrokenPipeError):  # `answer` says why
            self._pipe.send((method, arguments))

    def answer(self) -> Any:
        """What the last call returned.

        Raises:
            WorkerError: the process died, gave no answer in `HANG_SECONDS`, or the method raised.
            ValueError: the method, or `build`, raised one.
        """
        pending, self._pending = self._pending, 0
        for _ in range(pending):
            value = self._receive()
        return value

    def _receive(self) -> Any:
        if not self._pipe.poll(HANG_SECONDS):
            self._process.kill()
            raise WorkerError(f"{self._name} gave no answer in {HANG_SECONDS:g} s and was killed")
        try:
            error, value = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            self._process.join(CLOSE_SECONDS)
            raise WorkerError(f"{self._name} died with exit code {self._process.exitcode}") from None
        self._answered = True
        if error is ValueError:
            raise ValueError(value)
        if error is not None:
            raise WorkerError(f"{self._name} failed: {value}")
        return value

    def close(self) -> None:
        """End the process; may be repeated."""
        atexit.unregister(self.close)
        self._pipe.close()
        if not self._answered:  # it may be importing for seconds yet
            self._process.kill()
        self._process.join(CLOSE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


@contextmanager
def _no_script() -> Iterator[None]:
    """Spawn would import the running script in the new process, and with it all that a training needs and a worker not:
    of an unnamed `__main__` it knows no file.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _serve(build: Callable[[], Closable], pipe: Connection) -> None:
    error, target = _attempt(build)
    with suppress(EOFError, OSError):  # the parent closed the pipe, or died
        pipe.send((error, target if error else None))
        if error:
            return
        with closing(target):
            while True:
                method, arguments = pipe.recv()
                pipe.send(_attempt(getattr(target, method), *arguments))


def _attempt(function: Callable[..., Any], *arguments: Any) -> tuple[type[Exception] | None, Any]:
    """The result, or the kind of error and its message, with the place of an error that nobody foresaw."""
    try:
        return None, function(*arguments)
    except ValueError as error:
        return ValueError, str(error)
    except RuntimeError as error:
        return RuntimeError, f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 — the parent raises it
        return RuntimeError, describe(error)
