"""Stop and save on request, at a moment that the loop chooses."""

import signal
from types import FrameType
from typing import Any, Self


class GracefulExit:
    """Turns SIGTERM, SIGINT and SIGUSR1 (save and go on) into flags for the loop to read; enter it in the main thread.

        with GracefulExit() as stop:
            while not stop.requested: ...
        sys.exit(stop.exit_code)

    The second SIGTERM or SIGINT ends the process at once. Leaving restores the handlers that were there before.
    """

    requested: str | None = None  # "SIGTERM" or "SIGINT"
    save_requested: bool = False  # by each of them; whoever saves sets it back to False

    @property
    def exit_code(self) -> int:
        """143 after SIGTERM, 130 after SIGINT, 0 where nothing was requested."""
        return 128 + signal.Signals[self.requested] if self.requested else 0

    def __enter__(self) -> Self:
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGUSR1: self._save}
        self._previous: dict[signal.Signals, Any] = {s: signal.signal(s, h) for s, h in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            # None: installed by native code, which Python cannot put back
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    def _stop(self, signum: int, _: FrameType | None) -> None:
        self.requested, self.save_requested = signal.Signals(signum).name, True
        # The kernel then acts on the second one, even while the process is stuck in native code.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def _save(self, _: int, __: FrameType | None) -> None:
        self.save_requested = True
