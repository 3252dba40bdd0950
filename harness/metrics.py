"""Reading metrics.jsonl, of a run that may still be writing it or was killed in the middle of a line."""

import json
from pathlib import Path
from typing import Any

from harness.files import open_regular


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows of a log, and how many lines are none: torn or damaged.

    Raises:
        ValueError, OSError: it is not a regular file, or cannot be read.
    """
    rows, damaged = [], 0
    with open_regular(path) as file:
        for line in file:
            try:
                row = json.loads(line)
                row["step"] = int(row["step"])
                rows.append(row)
            except (ValueError, TypeError, KeyError, RecursionError):
                damaged += 1
    return rows, damaged
