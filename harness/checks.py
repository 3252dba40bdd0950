"""Checks of option values. Each raises ValueError with one line: the option, its value, and what is allowed.

`section` is the part of the key before the option, "env" for `env.size`. Options that are None are not checked.
"""

from collections.abc import Callable, Collection, Mapping

from harness.suggest import closest


def check_least(least: float, section: str = "", /, **options: float | None) -> None:
    """Raise ValueError for the first option that is not at least `least`."""
    _check(f"at least {least}", lambda value: value >= least, section, options)


def check_above(bound: float, section: str = "", /, **options: float | None) -> None:
    """Raise ValueError for the first option that is not above `bound`."""
    _check(f"above {bound}", lambda value: value > bound, section, options)


def check_within(interval: str, section: str = "", /, **options: float | None) -> None:
    """Raise ValueError for the first option outside of an interval, such as "[0, 1)"."""
    low, high = map(float, interval[1:-1].split(","))

    def holds(value: float) -> bool:
        above = value >= low if interval[0] == "[" else value > low
        return above and (value <= high if interval[-1] == "]" else value < high)

    _check(f"in {interval}", holds, section, options)


def _check(rule: str, holds: Callable[[float], bool], section: str, options: Mapping[str, float | None]) -> None:
    """Raise ValueError for the first option that breaks a rule; NaN breaks each."""
    for option, value in options.items():
        if value is not None and not holds(value):
            raise ValueError(f"{f'{section}.{option}'.lstrip('.')} must be {rule}, got {value}")


def check_choice(option: str, value: str, known: Collection[str]) -> None:
    """Raise ValueError, with the closest valid value if there is one, unless `value` is one of `known`."""
    if value not in known:
        near = closest(str(value), known)
        hint = f": did you mean {near!r}?" if near else ""
        raise ValueError(f"{option} must be one of {', '.join(known)}, got {value!r}{hint}")
