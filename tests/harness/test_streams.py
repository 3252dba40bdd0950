"""Output that cannot be written is dropped, and the program goes on."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import pytest
from rich.console import Console

from harness.streams import unbreakable_output


def closed_pipe() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def full_disk() -> TextIO:
    return open("/dev/full", "w")


def closed_file() -> TextIO:
    stream = io.StringIO()
    stream.close()
    return stream


BROKEN = [closed_pipe, full_disk, closed_file, lambda: None]


@contextmanager
def output(make: Callable[[], TextIO | None]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, make())
        yield


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_output_is_dropped(broken: Callable[[], TextIO | None]) -> None:
    with output(broken):
        before = sys.stdout, sys.stderr
        with unbreakable_output():
            for stream in (sys.stdout, sys.stderr):
                for text in ("line\n", "x" * 100_000):
                    assert stream.write(text) == len(text)
                stream.flush()
            Console(stderr=True).print("rich ends a program at a closed pipe")
            assert not sys.stderr.isatty()
        assert (sys.stdout, sys.stderr) == before
        for stream in before:
            if stream is not None and not stream.closed:
                stream.close()  # as the interpreter does at its end: raises nothing


def test_whole_output_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    with unbreakable_output():
        sys.stdout.write("out")
        sys.stderr.write("err")
    assert capsys.readouterr() == ("out", "err")


SCRIPT = """
from harness.signals import guard_imports
guard_imports()
with open("file", "w") as file:
    assert file.fileno() > 2, "error messages would be written into it"
"""


def test_no_file_gets_the_number_of_a_closed_output(tmp_path: Path) -> None:
    command = ["sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', sys.executable, SCRIPT]
    assert subprocess.run(command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.getcwd()}).returncode == 0
