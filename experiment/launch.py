"""The command line: Hydra's grammar, and one clear line for whatever is wrong with it."""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hydra import main
from hydra._internal.utils import get_args_parser
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from rich.logging import RichHandler

GAMES = re.compile(r"(env=atari|source=frames)/(\w+(?:,(?:atari|frames)/\w+)*)")


def launch(task: Callable[[DictConfig], int], config_dir: Path, argv: list[str], name: str = "config") -> int:
    """Compose the config `name` from `argv` (`key=value`, `group=choice`, `-m` for sweeps) and run `task` on it.

    Errors of the user's making (ValueError, MemoryError, RuntimeError of the run, unknown keys) become one line and
    exit code 2. Returns the exit code of the task, in a sweep the highest;
    a job that a signal ended (128 or more) is the last of its sweep.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_time=False, show_path=False)]
    )
    argv = [word for given in argv for word in _expand(given)]
    parser = get_args_parser()
    parsed, unknown = parser.parse_known_intermixed_args(argv)
    if unknown:
        options = re.findall(r"--[\w-]+", parser.format_usage())
        return _fail(f"unknown option {unknown[0]!r}: did you mean {_nearest(unknown[0], options)!r}?")
    codes: list[int] = []

    @main(version_base=None, config_path=str(config_dir), config_name=name)
    def run(config: DictConfig) -> None:
        if max(codes, default=0) < 128:  # a signal ends the whole sweep
            codes.append(_report(lambda: task(config)))

    sys.argv[1:] = sorted(argv, key=lambda word: word not in parsed.overrides)  # Hydra wants none behind an option
    os.environ["HYDRA_FULL_ERROR"] = "1"  # otherwise Hydra prints its errors itself and exits
    try:
        run()
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return _fail(explain(error, config_dir, name))
    return max(codes, default=0)


def _expand(word: str) -> list[str]:
    """`env=atari/breakout` is `env=atari env.game=breakout`, and `source=frames/breakout` shows that game."""
    if match := GAMES.fullmatch(word):
        return [match[1], "env.game=" + re.sub("(atari|frames)/", "", match[2])]
    return [word]


def _report(task: Callable[[], int]) -> int:
    try:
        return task()
    except (ValueError, MemoryError, OSError, RuntimeError) as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        return _fail(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command to continue\n")
        return 130


def _fail(line: str) -> int:
    sys.stderr.write(f"error: {line}\n")
    return 2


def explain(error: Exception, config_dir: Path, name: str) -> str:
    """One line for an error of Hydra's on the config `name`, with the nearest valid name or all of them."""
    cause, message = error.__cause__, str(error)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError):
        parent, _, key = str(cause.full_key).rpartition(".")
        if not cause.parent_node:
            return f"unknown key {cause.full_key!r}: {parent} is empty"
        siblings = [f"{parent}.{key}".lstrip(".") for key in cause.parent_node if key != "hydra"]
        everywhere = _keys(OmegaConf.to_container(cause.parent_node._get_root()))
        known = {dotted.rpartition(".")[2]: dotted for dotted in [*everywhere, *siblings]}
        return f"unknown key {cause.full_key!r}: did you mean {known[_nearest(key, list(known))]!r}?"
    if isinstance(cause, OmegaConfBaseException):
        line = f"{cause.full_key}: {str(cause.msg).splitlines()[0]}"
        if match := re.search(r"'(.*)', expected one of \[(.+)\]$", line):
            line += f": did you mean {_nearest(match[1], match[2].split(', '))!r}?"
        return line
    if match := re.search(r"Could not (?:find|load) '([\w-]+)/([\w./-]*)'", message):
        choices = re.findall(r"^\t(\S+)$", message, re.MULTILINE)
        choices = choices or sorted(path.stem for path in (config_dir / match[1]).glob("*.yaml"))
        near = _nearest(match[2], choices)
        return f"unknown {match[1]} {match[2]!r}: did you mean {near!r}? (there are {', '.join(choices)})"
    if match := re.match(r"Structured config not found (\w+)/(.*)/\.yaml", message):
        return f"unknown {match[1]} {match[2] + '/'!r}: did you mean {match[2]!r}?"
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: give key=value, or \"key='value'\" if there are special signs in it"
    if match := re.match(r"Could not override '([^']+)'", message):  # a group of another program
        keys = ConfigStore.instance().load(f"schema/{name}.yaml").node
        return f"unknown key {match[1]!r}: there are {', '.join(keys)}"
    hint = ": add -m to run each of them" if message.startswith("Ambiguous value") else ""
    return message.splitlines()[0] + hint


def _keys(tree: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of nested dictionaries, but for Hydra's own."""
    for key, child in tree.items() if isinstance(tree, dict) else ():
        if key != "hydra":
            yield f"{prefix}{key}"
            yield from _keys(child, f"{prefix}{key}.")


def _nearest(name: str, known: list[str]) -> str:
    return difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
