"""Standard output and error that never end a program: on a closed pipe or terminal or a full disk, text is dropped."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

_GONE = {errno.EPIPE, errno.EIO, errno.EBADF}  # errors that stay; a full disk may have space again


def occupy_descriptors() -> None:
    """Open /dev/null where descriptor 0, 1 or 2 is closed: a checkpoint under that number would get error messages."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


@contextmanager
def unbreakable_output() -> Iterator[None]:
    """Replace `sys.stdout` and `sys.stderr` in the block by streams that drop what cannot be written."""
    before = sys.stdout, sys.stderr
    occupy_descriptors()
    sys.stdout, sys.stderr = opened = (_open(before[0], 1), _open(before[1], 2))
    try:
        yield
    finally:
        for stream in opened:
            stream.finish()
        sys.stdout, sys.stderr = before


class _Unbreakable:
    """A text stream that raises no errors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop the text."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError) as error:  # ValueError: closed
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or keep the buffered text."""
        try:
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._drop(error)

    def finish(self) -> None:
        """Flush for the last time, so that the interpreter does not fail at it when it exits."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._discard()

    def _drop(self, error: Exception) -> None:
        if isinstance(error, OSError) and error.errno in _GONE:
            self._discard()

    def _discard(self) -> None:
        """Point the descriptor at /dev/null, also for libraries that write to it by number."""
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._stream.fileno())
            os.close(null)


def _open(stream: TextIO | None, number: int) -> Any:
    """The stream made unbreakable; if it is closed or None, a new stream on the descriptor `number`."""
    return _Unbreakable(os.fdopen(number, "w", closefd=False) if stream is None or stream.closed else stream)
