"""How far a loop is and how long it still takes: a bar on a terminal, lines elsewhere."""

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
        """Write nothing any more; rich would end the process."""
        self.quiet = True


CONSOLE = _Console(stderr=True)  # of all that people read, so that a line of the log goes above the bar
REFRESH, LINE = 0.25, 30.0  # seconds between two pictures of the bar, and about between two lines


def table_console() -> Console:
    """Standard output, for tables; as wide as a table needs where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 140)


class LineHandler(logging.Handler):
    """Lines of the log, above the bar and never wrapped: paths and commands are there to be copied."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one."""
        try:
            level = Text(f"{record.levelname:<8} ", "dim" if record.levelno < logging.WARNING else "bold yellow")
            CONSOLE.print(level + Text(self.format(record)), soft_wrap=True)
        except OSError:
            self.handleError(record)


class Meter:
    """The progress of one loop. Outside of `with` it shows nothing but lines.

    Args:
        what: is counted, "step".
        total: at the end of the loop; None where nobody knows.
        begun: of these are done before the loop.
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
        """Measure the rate from here on: what came before was other work."""
        self.done, self._from, self._since = done, done, time.monotonic()

    @property
    def seconds_each(self) -> float | None:
        """Seconds that one took since `count_from`, None where none is done."""
        done = self.done - self._from
        return (time.monotonic() - self._since) / done if done else None

    def by_rate(self, done: int) -> float | None:
        """Seconds to the end if it goes on like that, None where nobody knows."""
        each = self.seconds_each
        return None if each is None or self.total is None else max(0, self.total - done) * each

    def tick(self, done: int) -> None:
        """Show how far the loop is if it is time; a loop calls it at each step, for a fraction of a microsecond."""
        self.done = done
        if time.monotonic() - self._last >= (REFRESH if self in self._open else LINE):
            self.show(done)

    def show(self, done: int, shown: Mapping[str, float] | None = None) -> None:
        """Show how far the loop is, as far as that can be written: nobody may be reading any more.

        Args:
            done: of `total`.
            shown: numbers beside it, which stay until others come.
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
        """Give the terminal up once it is gone."""
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
    """Three digits, or all of a larger whole number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
