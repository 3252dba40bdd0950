"""The command line: Hydra's grammar, and one clear line for whatever is wrong with it."""

import difflib
import logging
import re
import sys
from collections.abc import Callable
from pathlib import Path

from hydra import compose, initialize_config_dir, main
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from rich.logging import RichHandler

ATARI = re.compile(r"env=((?:atari/\w+,?)+)")


def launch(task: Callable[[DictConfig], int], config_dir: Path, argv: list[str]) -> int:
    """Compose a config from `argv` (`key=value`, `group=choice`, `-m` for sweeps) and run `task` on it.

    Errors of the user's making (ValueError, MemoryError, RuntimeError of the run, unknown keys) become one line and
    exit code 2. Returns the exit code of the task, in a sweep the highest.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(message)s", handlers=[RichHandler(show_time=False, show_path=False)]
    )
    argv = [word for given in argv for word in _expand(given)]
    codes = []

    @main(version_base=None, config_path=str(config_dir), config_name="config")
    def run(config: DictConfig) -> None:
        codes.append(_report(lambda: task(config)))

    if not any(word.startswith("-") for word in argv):
        try:
            with initialize_config_dir(str(config_dir), version_base=None):
                compose("config", argv)
        except (HydraException, OmegaConfBaseException) as error:
            return _fail(explain(str(error), config_dir))
    sys.argv[1:] = argv
    run()
    return max(codes, default=0)


def _expand(word: str) -> list[str]:
    """`env=atari/breakout` names a game of the one Atari config: `env=atari env.game=breakout`."""
    if match := ATARI.fullmatch(word):
        return ["env=atari", "env.game=" + match[1].replace("atari/", "")]
    return [word]


def _report(task: Callable[[], int]) -> int:
    try:
        return task()
    except (ValueError, MemoryError, OSError, RuntimeError) as error:
        logging.getLogger(__name__).debug("traceback", exc_info=True)
        return _fail(str(error) or type(error).__name__)


def _fail(line: str) -> int:
    sys.stderr.write(f"error: {line}\n")
    return 2


def explain(message: str, config_dir: Path) -> str:
    """One line for an error of Hydra's, with the nearest valid name."""
    line = message.splitlines()[0]
    if match := re.search(r"Could not override '([\w./@]+)'", message):
        with initialize_config_dir(str(config_dir), version_base=None):
            known = _keys(compose("config"))
        near = difflib.get_close_matches(match[1], known, n=1, cutoff=0.0)
        return f"unknown key {match[1]!r}: did you mean {near[0]!r}?"
    if match := re.search(r"Could not find '([\w-]+)/([\w./-]+)'", message):
        choices = re.findall(r"^\t(\S+)$", message, re.MULTILINE) or re.findall(r"^\s+(\S+)$", message, re.MULTILINE)
        near = difflib.get_close_matches(match[2], choices, n=1, cutoff=0.0) or ["?"]
        return f"unknown {match[1]} {match[2]!r}: did you mean {near[0]!r}? (there are {', '.join(choices)})"
    return line


def _keys(config: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for key, child in config.items():
        name = f"{prefix}{key!s}"
        keys.append(name)
        if isinstance(child, DictConfig):
            keys += _keys(child, f"{name}.")
    return keys
