"""Reading metrics.jsonl, whose last line may be incomplete: the run may be writing it, or was killed."""

import json
from pathlib import Path
from typing import Any

from harness.files import open_regular

TAIL_BYTES = 1 << 16  # that are read from the end of a file


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a log, and the number of damaged lines.

    Raises:
        ValueError, OSError: the file is not regular, or cannot be read.
    """
    with open_regular(path) as file:
        rows = [parse_row(line) for line in file]
    return [row for row in rows if row], rows.count(None)


def parse_row(line: bytes) -> dict[str, Any] | None:
    """The row in a line; None if the line is damaged."""
    try:
        row = json.loads(line)
        return {**row, "step": int(row["step"])}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def seconds_of(row: dict[str, Any]) -> float | None:
    """Wall-clock seconds of the run up to a row; None if they are missing."""
    try:
        return float(row["clock"]["seconds"])
    except (ValueError, TypeError, KeyError):
        return None


def read_tail(path: Path) -> list[bytes]:
    """The last lines of a file, of which the first and the last may be incomplete; empty if there is no file."""
    if not path.is_file():
        return []
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read().split(b"\n")
