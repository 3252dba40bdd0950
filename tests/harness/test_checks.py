"""Values out of range are refused in one line; values in range, and None, are not."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from harness.checks import check_above, check_choice, check_least, check_within

CHECKS: list[tuple[Callable[..., None], str, list[float], list[float]]] = [
    (partial(check_least, 1), "at least 1", [1, 1.5, math.inf], [0, 0.99, -1]),
    (partial(check_above, 0), "above 0", [1e-9, 1, math.inf], [0, -1]),
    (partial(check_within, "[0, 1]"), "in [0, 1]", [0, 0.5, 1], [-1e-9, 1.01]),
    (partial(check_within, "[0, 1)"), "in [0, 1)", [0, 0.99], [-1, 1]),
    (partial(check_within, "(0, 1]"), "in (0, 1]", [0.01, 1], [0, 1.01]),
    (partial(check_within, "(0, 1)"), "in (0, 1)", [0.01, 0.99], [0, 1]),
]


@pytest.mark.parametrize(("check", "rule", "good", "bad"), CHECKS)
def test_the_first_value_out_of_range_is_named(check: Any, rule: str, good: list[float], bad: list[float]) -> None:
    for value in good:
        check("env", size=value, other=None)
    for value in [*bad, math.nan]:
        for section, key in (("env", "env.size"), ("replay.relabel", "replay.relabel.size"), ("", "size")):
            with pytest.raises(ValueError) as error:  # noqa: PT011 - the whole message is compared below
                check(section, before=good[0], size=value, after=value)
            assert str(error.value) == f"{key} must be {rule}, got {value}"


def test_an_unknown_choice_gets_the_known_ones_and_the_closest() -> None:
    check_choice("env.quality", "fast", ("fast", "full"))
    with pytest.raises(ValueError, match=r"^env.quality must be one of fast, full, got 'fst': did you mean 'fast'\?$"):
        check_choice("env.quality", "fst", ("fast", "full"))
    with pytest.raises(ValueError, match=r"^env.quality must be one of fast, full, got 'x'$"):
        check_choice("env.quality", "x", ("fast", "full"))
