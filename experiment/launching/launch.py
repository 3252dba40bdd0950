"""Launch a command: read its words, run it or its sweep, and turn every error into one clear line."""

import logging
import re
import sys
from collections.abc import Callable
from functools import partial
from traceback import print_exc

from hydra.errors import HydraException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from configs.sweep import SWEEPS, LocalSweep, RaySweep
from experiment.command_line.composition import COMMANDS, Composed, freeze
from experiment.command_line.modules import import_modules
from experiment.command_line.overrides import SWEEP, compose_jobs, named_modules, read_options, with_keys
from experiment.command_line.usage import help_text
from harness.checks import check_choice
from harness.errors import describe, first_line
from harness.progress import LineHandler
from harness.signals import interruptible
from harness.streams import unbreakable_output
from harness.suggest import closest

log = logging.getLogger(__name__)


def launch(
    run: Callable[[Composed], int], name: str, argv: list[str], about: str = "", *, module: str | None = None
) -> int:
    """Compose the config `name` from the words of a command line, and run it.

    Words are `key=value`, `group=choice`, the short forms of `overrides.expand` and those in `usage.USAGE`. Errors that
    a user can cause (unknown keys; ValueError, MemoryError, OSError, RuntimeError of the run) become one line and exit
    code 2.

    Args:
        run: runs one config; returns an exit code.
        name: of a file in configs/, without .yaml.
        argv: the words.
        about: first part of the help.
        module: of the command. A sweep then runs it in several processes; without it, one run follows another here.

    Returns:
        The exit code of the run. In a sweep it is the highest. Without `module`, a sweep ends after the first run
        that a signal ended (128 or more).
    """
    with unbreakable_output(), interruptible():
        return exit_code(partial(_launch, run, name, argv, about, module))


def _launch(run: Callable[[Composed], int], name: str, argv: list[str], about: str, module: str | None) -> int:
    jobs = _jobs(name, argv, about)
    if isinstance(jobs, int):
        return jobs
    if module and len(jobs) > 1:
        from experiment.launching.sweep import sweep

        return sweep(name, jobs, sys.modules[module], sweep_settings(argv))
    highest = 0
    for job in jobs:
        highest = max(highest, exit_code(partial(run, job)))
        if highest >= 128:
            break
    return highest


def check_words(name: str, argv: list[str], about: str = "") -> None:
    """Exit if a command line asks for help or is wrong.

    Commands call it before they import torch, so that the answer takes a fraction of a second.
    """
    with unbreakable_output():
        jobs = _jobs(name, argv, about)
    if isinstance(jobs, int):
        sys.exit(jobs)


def _jobs(name: str, argv: list[str], about: str) -> list[Composed] | int:
    """The runs that a command line asks for; or an exit code, if it was wrong or asked for help."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[LineHandler()])
    try:
        options = set(read_options(argv))
        words = with_keys(name, [word for word in argv if not word.startswith("-")])
        import_modules(named_modules(words))
        sweep_settings(words)
        if "--multirun" not in options and (of_sweep := [word for word in words if word.startswith(SWEEP)]):
            raise ValueError(f"{of_sweep[0]} configures a sweep: add -m, or remove it")
        jobs = compose_jobs(name, words, sweep="--multirun" in options)
        if "--help" in options:
            sys.stdout.write(help_text(name, jobs[0], about))
            return 0
        if "--cfg" in options:
            sys.stdout.write("---\n".join(OmegaConf.to_yaml(job.config) for job in jobs))
            return 0
        for job in jobs:
            freeze(job.config, COMMANDS[name])
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        return _fail(_line(error))
    return jobs


def exit_code(run: Callable[[], int]) -> int:
    """Call `run`. Return its exit code, 2 after an error (reported in one line), or 128 + the number of a signal.

    Python's development mode (`python -X dev train.py ...`) also prints the traceback.
    """
    try:
        return run()
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 — told in one line
        if stop := _interruption(error):
            sys.stderr.write("interrupted; run the same command again\n")
            return getattr(stop, "exit_code", 130)
        if sys.flags.dev_mode:
            print_exc()
        foreseen = isinstance(error, ValueError | MemoryError | OSError | RuntimeError)
        return _fail(first_line(error) if foreseen else f"{describe(error)}; python -X dev shows the traceback")


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The interruption that caused an error: an interrupted library may fail while it cleans up."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def sweep_settings(words: list[str]) -> LocalSweep | RaySweep:
    """Where a sweep runs its runs, by the words `sweep=...` and `sweep.key=value`.

    Raises:
        ValueError, OmegaConfBaseException: an unknown name or a wrong value.
    """
    given = dict(word.split("=", 1) for word in words if word.startswith(SWEEP))
    name = given.pop("sweep", "local")
    check_choice("sweep", name, SWEEPS)
    values = {key.removeprefix("sweep."): value for key, value in given.items()}
    schema = OmegaConf.structured(SWEEPS[name])
    for key in values:
        check_choice(f"a key of sweep={name}", f"sweep.{key}", [f"sweep.{known}" for known in schema])
    settings = OmegaConf.to_object(OmegaConf.merge(schema, values))
    assert isinstance(settings, LocalSweep | RaySweep)
    return settings


def _line(error: Exception) -> str:
    """One line for an error of Hydra or of this suite."""
    cause = (error.__cause__ or error.__context__) if isinstance(error, HydraException) else error
    if isinstance(error, OverrideParseException):
        return f"cannot read {error.override!r}: give key=value, or \"key='value'\" if there are special signs in it"
    if isinstance(cause, ConfigKeyError) and (preset := re.match("In '(.+?)'", str(error))):
        group = str(cause.full_key).partition(".")[0]
        return f"{preset[1]} sets {cause.full_key}, which this choice of {group} does not have: leave out one of them"
    if isinstance(cause, OmegaConfBaseException):
        line = f"{cause.full_key}: {first_line(cause)}"
        if match := re.search(r"Value '(.*?)' of .*could not be converted to (Integer|Float)$", line):
            return f"{cause.full_key}={match[1]}: must be {'a whole number' if match[2] == 'Integer' else 'a number'}"
        if match := re.search(r"'(.*)', expected one of \[(.+)\]$", line):
            near = closest(match[1], match[2].split(", "))
            line += f": did you mean {near!r}?" if near else ""
        return line
    return first_line(error)


def _fail(line: str) -> int:
    sys.stderr.write(f"error: {line}\n")
    return 2
