"""The reference of configuration keys explains each key."""

from functools import cache
from importlib import import_module
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "scripts")
        yield import_module("reference")


@cache
def every_key(reference):
    return [key for _, _, keys in reference.sections() for key in keys]


def test_each_key_has_an_explanation(reference):
    keys = every_key(reference)
    assert not [key.name for key in keys if not key.meaning]
    assert len(keys) > 250


@pytest.mark.parametrize(
    ("name", "default", "allowed"),
    [
        ("replay.alpha", 0.5, "in [0, 1]"),
        ("collect.block", 16, "at least 2"),
        ("gamma", 0.99, "in (0, 1]"),
        ("env.size", 36, "a multiple of 12, such as 36"),
        ("env.quality", "fast", "fast, full"),
        ("agent.precision", "float32", "`float32`, `bfloat16`, `auto`"),
        ("agent.learning_rate", 2.5e-4, "above 0"),
        ("agent.target_every", 1_000, "above 0"),
        ("aux.dbc.options.form", "paper", "paper, released, normed, robust, mico, rap"),
        ("aux.moco.options.queue", 2048, "at least 1"),
    ],
)
def test_a_range_is_what_the_config_refuses(reference, name, default, allowed):
    assert any((key.name, key.default, key.allowed) == (name, default, allowed) for key in every_key(reference))


def test_the_comment_of_a_subclass_or_else_of_its_base_is_the_explanation(reference):
    inherited = {key.name: key.meaning for key in reference.config_keys("agent", reference.GROUPS["agent"]["dqn"])}
    assert inherited["agent.learning_rate"] == "of Adam, at the start"
    assert inherited["agent.epsilon_steps"].startswith("agent steps over which")
