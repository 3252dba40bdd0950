"""YAML of somebody else's as data."""

import yaml

DEEPEST = 16  # levels: a run's config has 4


def check_plain(text: str) -> None:
    """Raise ValueError if a text is no YAML, or has aliases, interpolations or too many levels."""
    depth = 0
    try:
        for event in yaml.parse(text):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"it is more than {DEEPEST} levels deep")
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"it has an alias, *{event.anchor}")
            if isinstance(event, yaml.ScalarEvent) and "${" in event.value:
                raise ValueError(f"it has an interpolation, {event.value[:40]!r}")
    except yaml.YAMLError as error:
        raise ValueError(str(error).splitlines()[0]) from error
