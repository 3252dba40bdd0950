"""Lazy imports: a command line is checked before torch is imported, and a run starts without what few runs need."""

from collections import UserDict
from collections.abc import Callable
from importlib import import_module
from typing import Any, TypeVar

V = TypeVar("V")
PREFIX = __name__.removesuffix("harness.lazy")  # prefix of our modules: empty, or "sidequest." in the wheel


def lazily(modules: dict[str, tuple[str, ...]]) -> Callable[[str], Any]:
    """The `__getattr__` of a package (PEP 562) that imports each name from the module under which it is listed."""
    where = {name: module for module, names in modules.items() for name in names}

    def getattr_(name: str) -> Any:
        if name not in where:
            raise AttributeError(name)
        return getattr(import_module(PREFIX + where[name]), name)

    return getattr_


class LazyModule:
    """A module that is imported when one of its names is first read."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


class Registry(UserDict[str, V]):
    """Objects by the name that a config uses. An object given as "module:name" is imported when it is first read."""

    def __init__(self, entries: dict[str, str]) -> None:
        self.data: dict[str, Any] = dict(entries)

    def __getitem__(self, name: str) -> V:
        if isinstance(entry := self.data[name], str):
            module, _, attribute = entry.partition(":")
            entry = self.data[name] = getattr(import_module(PREFIX + module), attribute)
        return entry  # type: ignore[no-any-return]
