"""Import modules of users, which add auxiliary tasks, encoders and environments."""

import importlib
import sys
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

from harness.errors import describe


def import_modules(names: Iterable[str]) -> None:
    """Import modules, from the working folder too, and every entry point `sidequest`.

    Raises:
        ValueError: a module cannot be imported.
    """
    loaders: dict[str, Callable[[], object]] = {name: partial(importlib.import_module, name) for name in names}
    if loaders and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    loaders |= {point.value: point.load for point in entry_points(group="sidequest")}
    for name, load in loaders.items():
        try:
            load()
        except Exception as error:  # a module may raise anything
            raise ValueError(f"cannot import {name!r}: {describe(error)}") from error
