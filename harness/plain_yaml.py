"""YAML of somebody else's as data."""

from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.errors import first_line

DEEPEST = 16  # levels: a run's config has 4


def parse_plain(text: str) -> dict[str, Any]:
    """The keys of a text, without tags, aliases, interpolations or too many levels.

    Raises:
        ValueError: it is something else.
    """
    try:
        _check_plain(text)
        tree = OmegaConf.to_container(OmegaConf.create(text))
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ValueError(getattr(error, "problem", None) or first_line(error)) from error
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def _check_plain(text: str) -> None:
    """Raise ValueError or YAMLError, before anything is built."""
    depth = 0
    for event in yaml.parse(text):
        if not depth and isinstance(event, yaml.NodeEvent) and not isinstance(event, yaml.MappingStartEvent):
            raise ValueError("it holds no keys")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it is more than {DEEPEST} levels deep")
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it has an alias, *{event.anchor}")
        if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
            raise ValueError(f"it has an interpolation, {event.value[:40]!r}")
