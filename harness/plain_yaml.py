"""Reading yaml that anybody may have written: it is parsed as plain data and never executes anything."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.errors import first_line
from harness.files import read_regular

LARGEST = 1 << 16  # bytes of a file; the config of a run has 3 kB
DEEPEST = 16  # levels; the config of a run has 4


def read_plain(path: Path) -> dict[str, Any]:
    """The keys of a yaml file, as `parse_plain` reads them.

    Raises:
        ValueError: the file is too large, or holds something else.
        OSError: it cannot be read.
    """
    return parse_plain(read_regular(path, LARGEST).decode())


def parse_plain(text: str) -> dict[str, Any]:
    """The keys of a yaml text.

    Raises:
        ValueError: it is not a mapping, or has tags, aliases, interpolations or too many levels.
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
