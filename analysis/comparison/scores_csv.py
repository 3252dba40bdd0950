"""Reading scores from CSV: columns step, score and perhaps seed, or the monitor.csv of Stable-Baselines3."""

import csv
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.files import read_regular

LIMIT = 2**28  # bytes
SEED = re.compile(r"(?:(.*?)[-_.])?s(?:eed)?[-_]?(\d+)", re.IGNORECASE)  # dqn-s0, seed_1, s2
Rows = list[tuple[int, float, float | None]]  # agent step, score, seconds


@dataclass(frozen=True)
class Published:
    """A published curve, of another protocol, drawn for orientation."""

    label: str
    steps: NDArray[np.float64]  # (P,)
    score: NDArray[np.float64]  # (P,)
    low: NDArray[np.float64] | None  # (P,)
    high: NDArray[np.float64] | None


def read_scores(path: Path) -> dict[int | None, Rows]:
    """The rows of each seed, ordered by step; the seed is None without a column for it.

    Raises:
        ValueError: a column is missing, or a cell is not a number; the message names the line.
    """
    columns = _columns(path)
    runs: dict[int | None, Rows] = defaultdict(list)
    if {"r", "l"} <= columns.keys():  # of Stable-Baselines3: return, length and time of each episode
        ends, times = accumulate(columns["l"]), _optional(columns, "t")
        for step, score, seconds in zip(ends, columns["r"], times, strict=True):
            runs[None].append((int(step), score, seconds))
    elif {"step", "score"} <= columns.keys():
        seeds = _optional(columns, "seed")
        for step, score, seed in zip(columns["step"], columns["score"], seeds, strict=True):
            runs[None if seed is None else int(seed)].append((int(step), score, None))
    else:
        wanted = "step and score, or r and l of a monitor"
        raise ValueError(f"{path} has the columns {', '.join(columns)}: expected {wanted}")
    return {seed: sorted(rows, key=lambda row: row[0]) for seed, rows in runs.items()}


def read_published(path: Path) -> Published:
    """A curve from the columns step, score, and perhaps low and high.

    Raises:
        ValueError: a column is missing, or a cell is not a number; the message names the line.
    """
    columns = _columns(path)
    if not {"step", "score"} <= columns.keys():
        raise ValueError(f"{path} has the columns {', '.join(columns)}: expected step and score, perhaps low and high")
    order = np.argsort(columns["step"], kind="stable")
    steps, score = (np.array(columns[name])[order] for name in ("step", "score"))
    low, high = (np.array(columns[name])[order] if name in columns else None for name in ("low", "high"))
    return Published(path.stem, steps, score, low, high)


def with_seed(path: Path) -> tuple[str, int]:
    """The label and the seed in a path: `ppo-s1.csv`, `ppo/s1/monitor.csv`, `ppo/1.monitor.csv`."""
    stem = path.stem if path.stem != "monitor" else ""
    if match := re.fullmatch(r"(\d+)\.monitor", stem):
        return path.absolute().parent.name, int(match[1])
    parts = [*path.absolute().parts[1:-1], *([stem] if stem else [])]
    if match := SEED.fullmatch(parts[-1]):
        return match[1] or parts[-2], int(match[2])
    return parts[-1], 0


def _optional(columns: dict[str, list[float]], name: str) -> list[float] | list[None]:
    """A column, or None for every row if it is missing."""
    return columns.get(name) or [None] * len(next(iter(columns.values())))


def _columns(path: Path) -> dict[str, list[float]]:
    lines = read_regular(path, LIMIT).decode(errors="replace").splitlines()
    skipped = int(bool(lines) and lines[0].startswith("#"))  # the first of a monitor
    rows = csv.reader(lines[skipped:])
    header = [name.strip().lower() for name in next(rows, [])]
    read = [list(_numbers(cells, header, f"{path}:{i}")) for i, cells in enumerate(rows, skipped + 2) if cells]
    if header and not read:
        raise ValueError(f"{path} has no rows")
    return {name: [row[k] for row in read] for k, name in enumerate(header)}


def _numbers(cells: list[str], header: list[str], where: str) -> Iterator[float]:
    if len(cells) != len(header):
        raise ValueError(f"{where} has {len(cells)} cells, the header {len(header)}")
    for name, cell in zip(header, cells, strict=True):
        try:
            value = float(cell)
        except ValueError:
            value = np.nan
        if not np.isfinite(value) and name in ("step", "score", "seed", "low", "high", "r", "l", "t"):
            raise ValueError(f"{where}: {name} is {cell!r}, expected a number")
        yield value
