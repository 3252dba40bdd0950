"""JSON reports, and the versions that they record."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.files import read_regular, replacing


def versions(*packages: str) -> dict[str, str]:
    """Versions of the suite, torch, NumPy, further packages, Python, and the machine."""
    return {name: _version(name) for name in ("sidequest", "torch", "numpy", *packages)} | {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
    }


def write_json(content: Mapping[str, Any], path: Path) -> None:
    """Write a JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, limit: int = 1 << 26) -> dict[str, Any]:
    """The object in a JSON file of at most `limit` bytes, which may be somebody else's.

    Raises:
        ValueError, OSError: the file cannot be read, or is not a JSON object.
    """
    try:
        content = json.loads(read_regular(path, limit))
    except RecursionError as error:
        raise ValueError("it is too deep") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no keys")
    return content


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # such as a checkout that was never installed
        return "not installed"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
