"""Progress of a loop and its remaining time: a bar on a terminal, lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import ClassVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Write nothing from now on; rich would end the process."""
        self.quiet = True


CONSOLE = _Console(stderr=True)  # shared, so that lines of the log go above the bar
REFRESH, LINE = 0.25, 30.0  # seconds between updates of the bar, and between lines


def table_console() -> Console:
    """A console on standard output for tables; wide enough for them if it is not a terminal."""
    return Console(width=None if sys.stdout.isatty() else 140)


class LineHandler(logging.Handler):
    """Prints log records above the bar, never wrapped, so that paths and commands can be copied."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        try:
            level = Text(f"{record.levelname:<8} ", "dim" if record.levelno < logging.WARNING else "bold yellow")
            CONSOLE.print(level + Text(self.format(record)), soft_wrap=True)
        except OSError:
            self.handleError(record)


class Meter:
    """The progress of one loop. Outside of `with` it shows lines, no bar.

    Args:
        what: the unit that is counted, such as "step".
        total: count at the end of the loop; None if it is not known.
        begun: count before the loop.
    """

    _open: ClassVar[list["Meter"]] = []  # a terminal shows the innermost

    def __init__(self, what: str, total: int | None, begun: int = 0) -> None:
        self.what, self.total = what, total
        self._shown: dict[str, float] = {}
        self._live: Live | None = None
        self.estimate: Callable[[int], float | None] = self.by_rate  # seconds to the end
        self._last = time.monotonic()
        self.count_from(begun)

    def __enter__(self) -> "Meter":
        if CONSOLE.is_terminal and not CONSOLE.quiet:
            for outer in self._open:
                outer._hide(keep=False)
            self._open.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        if self in self._open:
            self._hide(keep=self._open == [self])
        if self in self._open:
            self._open.remove(self)

    def count_from(self, done: int) -> None:
        """Measure the rate from here on, since the work before was of another kind."""
        self.done, self._from, self._since = done, done, time.monotonic()

    @property
    def seconds_each(self) -> float | None:
        """Seconds for each unit since `count_from`; None if none is done."""
        done = self.done - self._from
        return (time.monotonic() - self._since) / done if done else None

    def by_rate(self, done: int) -> float | None:
        """Seconds to the end at the current rate; None if it is not known."""
        each = self.seconds_each
        return None if each is None or self.total is None else max(0, self.total - done) * each

    def tick(self, done: int) -> None:
        """Show the progress if it is time to. Loops call this at every step; it costs less than a microsecond."""
        self.done = done
        if time.monotonic() - self._last >= (REFRESH if self in self._open else LINE):
            self.show(done)

    def show(self, done: int, shown: Mapping[str, float] | None = None) -> None:
        """Show the progress. Errors of a closed terminal are ignored.

        Args:
            done: count so far.
            shown: numbers to show with it, which stay until the next ones.
        """
        self._last, self.done = time.monotonic(), done
        self._shown = self._shown if shown is None else dict(shown)
        left = self.estimate(done)
        head = f"{self.what} {min(done, self.total or done):,}" + (f"/{self.total:,}" if self.total else "")
        numbers = "  ".join(f"{name} {short(value)}" for name, value in self._shown.items())
        speed = f"{short(1 / self.seconds_each)}/s" if self.seconds_each else ""
        tail = "  ".join(filter(None, [speed, f"{clock(left)} left" if left is not None else ""]))
        if self in self._open:
            self._draw(head, tail, numbers, done)
        else:
            with suppress(OSError):
                sys.stderr.write("  ".join(filter(None, [head, tail, numbers])) + "\n")

    def _draw(self, head: str, tail: str, numbers: str, done: int) -> None:
        row = Table.grid(padding=(0, 1), expand=True)
        row.add_column(no_wrap=True)
        row.add_column(ratio=1)
        row.add_column(no_wrap=True)
        row.add_row(head, ProgressBar(self.total, min(done, self.total or done), pulse=not self.total), tail)
        picture = Group(row, Text(numbers)) if numbers else row
        with self._while_there():
            if self._live is None:
                self._live = Live(console=CONSOLE, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
                self._live.start()
            self._live.update(picture, refresh=True)

    def _hide(self, *, keep: bool) -> None:
        if self._live is not None:
            with self._while_there():
                self._live.transient = not keep
                self._live.stop()
            self._live = None

    @contextmanager
    def _while_there(self) -> Iterator[None]:
        """Stop drawing when the terminal is closed."""
        try:
            yield
        except OSError:
            CONSOLE.quiet, self._live = True, None
            self._open.clear()


def clock(seconds: float) -> str:
    """`3:07:05`, or `7:05` below an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short(value: float) -> str:
    """Three significant digits, or all digits of a larger whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
