"""Words of the command line that people write, as Hydra's grammar and the types of the keys want them."""

import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

from hydra.core.override_parser.types import Override

from envs import ENVS
from harness.suggest import closest, nearest

SHORTHAND = re.compile(r"env=(\w+)/([\w-]+)")
GAME = re.compile(r"(source=frames)/(\w+)")
GYMNASIUM = re.compile(r"(?:ALE/)?(\w+?)(?:NoFrameskip|Deterministic)?-v\d+")  # of Atari: ALE/Pong-v5
OPTIONS = {"--help": "--help", "-h": "--help", "--multirun": "--multirun", "-m": "--multirun", "--cfg": "--cfg"}


def expand(word: str) -> list[str]:
    """The words that a short one stands for: `env=dmc/walker_walk` is `env=dmc env.domain=walker env.task=walk`.

    Raises:
        ValueError: the family of environments has no such member.
    """
    if match := GAME.fullmatch(word):
        return [match[1], f"env.game={match[2]}"]
    match = SHORTHAND.fullmatch(word)
    if not match or match[1] not in ENVS:
        return [word]
    members = ENVS[match[1]].members()
    if match[2] not in members:
        raise ValueError(f"unknown {match[1]} environment {match[2]!r}: {nearest(match[2], members)}")
    return [f"env={match[1]}", *(f"env.{key}={value}" for key, value in members[match[2]].items())]


def quoted(text: str) -> str:
    """A value that Hydra reads as this text."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'")
    return f"'{escaped}'"


def similar_env(name: str) -> str | None:
    """`atari/pong` for `pong`, `ALE/Pong-v5` and `PongNoFrameskip-v4`; None where nothing is like the name."""
    match = GYMNASIUM.fullmatch(name)
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", match[1]).lower() if match else name
    members = {member: f"{family}/{member}" for family, kind in ENVS.items() for member in kind.members()}
    return members.get(closest(plain, members) or "")


def typed_value(override: Override, tree: Any) -> Any:
    """The value of a word as the type of its key wants it: a whole number may be written `1e6`.

    Args:
        override: of the word.
        tree: nested dictionaries of the values so far.

    Raises:
        ValueError: the key is true or false, and the word gives something else.
    """
    key, value = override.get_key_element(), override.value()
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    if isinstance(tree, bool) and not isinstance(value, bool):
        raise ValueError(f"{override.input_line}: give {key}=true or {key}=false")
    if isinstance(tree, int) and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def read_options(argv: Iterable[str]) -> Iterator[str]:
    """The options among the words, by their long names.

    Raises:
        ValueError: an unknown one; `--experiment pong_cpu` is told to be `experiment=pong_cpu`.
    """
    words = [*argv, ""]
    for word, after in pairwise(words):
        if not word.startswith("-"):
            continue
        name, _, value = word.lstrip("-").partition("=")
        if word in OPTIONS:
            yield OPTIONS[word]
        elif len(name) < 2 or closest(f"--{name}", OPTIONS):
            raise ValueError(f"unknown option {word!r}: {nearest(word, OPTIONS)}")
        else:
            value = value or (after if re.fullmatch(r"[^-=][^=]*", after) else "...")
            raise ValueError(f"unknown option {word!r}: keys have no dashes, give {name}={value}")
