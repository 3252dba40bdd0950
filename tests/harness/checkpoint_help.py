"""States to save, and what tells two of them apart."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness.tree import Segment

OLD = {"agent": {"w": torch.arange(5.0), "lr": 0.5}, "counters": {"env_steps": 7}}
NEW = {"agent": {"w": torch.arange(5.0) + 1, "lr": 0.25}, "counters": {"env_steps": 9}}


def same(a: Any, b: Any) -> bool:
    """Equal in value, type, dtype and shape; nan equals nan, and 0.0 is not -0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return same(list(a), list(b)) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and bytes_of(a) == bytes_of(b)
    if isinstance(a, np.ndarray | np.generic):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, Segment):
        return a.name == b.name and same(a.array, b.array)
    return repr(a) == repr(b)


def bytes_of(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def leftovers(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("step_"))


def steps(root: Path) -> list[str]:
    return sorted(path.name for path in root.glob("step_*"))


def in_child(function: Callable[[], int | None]) -> int:
    """What a forked process ends with that runs `function`: its result as the exit code, or minus the signal."""
    if pid := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 99
    try:
        code = function() or 0
    finally:
        os._exit(code)
