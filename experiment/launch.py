"""The command line: Hydra's grammar, and one clear line for whatever is wrong with it."""

import importlib
import itertools
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from traceback import print_exc
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

import configs
from configs.sweep import SWEEPS, LocalSweep, RaySweep
from experiment.composition import COMMANDS, Composed, freeze, register, with_tasks
from experiment.words import expand, quoted, read_options, similar_env, typed_value
from harness.errors import describe, first_line
from harness.progress import LineHandler
from harness.signals import interruptible
from harness.streams import unbreakable_output
from harness.suggest import check_choice, closest, nearest

log = logging.getLogger(__name__)
CONFIGS = Path(configs.__path__[0])
OWN = ("sweep=", "sweep.")  # words of a sweep, which are no keys
SCRIPTS = {name: f"{'train' if name == 'config' else name}.py" for name in COMMANDS}
IMPORT = re.compile(r"imports?=\[?(.*?)\]?")
USAGE = """\
Options:
  -m, --multirun   run every combination of key=a,b and key=range(0,5)
  sweep.jobs=2     how many of them train at once; default: one for each core
  sweep=ray        train them on a Ray cluster: sweep.address, sweep.cpus, sweep.gpus and sweep.retries of each run
  --cfg            print the composed config and stop
  import=module    import a module first, which may add auxiliary tasks, encoders and environments
"""


def launch(
    run: Callable[[Composed], int], name: str, argv: list[str], about: str = "", *, module: str | None = None
) -> int:
    """Compose the config `name` from the words of a command line, and run it.

    Words are `key=value`, `group=choice`, the short ones of `words.expand` and those in `USAGE`. Errors of the user's
    making (unknown keys; ValueError, MemoryError, OSError, RuntimeError of the run) become one line and exit code 2.

    Args:
        run: one run; returns an exit code.
        name: of a file in configs/, without .yaml.
        argv: the words.
        about: first part of the help.
        module: of the command, which a sweep runs in several processes. Without it, runs follow each other here.

    Returns:
        The exit code of the run. In a sweep it is the highest; without `module`, a run that a signal ended (128 or
        more) is the last.
    """
    with unbreakable_output(), interruptible():
        return exit_code(partial(_launch, run, name, argv, about, module))


def _launch(run: Callable[[Composed], int], name: str, argv: list[str], about: str, module: str | None) -> int:
    jobs = _jobs(name, argv, about)
    if isinstance(jobs, int):
        return jobs
    if module and len(jobs) > 1:
        from experiment.sweep import sweep

        return sweep(name, jobs, sys.modules[module], sweep_settings(argv))
    highest = 0
    for job in jobs:
        highest = max(highest, exit_code(partial(run, job)))
        if highest >= 128:
            break
    return highest


def check_words(name: str, argv: list[str], about: str = "") -> None:
    """Leave the process if a command line asks for help or is wrong.

    A command calls it before it imports what needs torch, so that the answer takes a fraction of a second.
    """
    with unbreakable_output():
        jobs = _jobs(name, argv, about)
    if isinstance(jobs, int):
        sys.exit(jobs)


def _jobs(name: str, argv: list[str], about: str) -> list[Composed] | int:
    """The runs that a command line asks for, or the exit code where it has been answered."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[LineHandler()])
    try:
        options = set(read_options(argv))
        words = _with_checkpoint(name, [word for word in argv if not word.startswith("-")])
        import_modules(words)
        sweep_settings(words)
        if "--multirun" not in options and (of_sweep := [word for word in words if word.startswith(OWN)]):
            raise ValueError(f"{of_sweep[0]} is of a sweep: add -m, or leave it out")
        jobs = compose_jobs(name, words, sweep="--multirun" in options)
        if "--help" in options:
            sys.stdout.write(f"{about.strip()}\n\n{USAGE}\n{_groups(name)}\n{_keys(jobs[0])}")
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
    """What `run` returns; 2 and one line for an error, 128 + its number for a signal.

    Python's development mode (`python -X dev train.py ...`) shows the traceback as well.
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
    """The signal that an error is, or follows from: a library that is interrupted may fail while it cleans up."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error


def import_modules(words: list[str]) -> None:
    """Import what the `import=` words name, from the working directory too, and every entry point `sidequest`.

    Raises:
        ValueError: a module cannot be imported.
    """
    loaders: dict[str, Callable[[], object]] = {
        module: partial(importlib.import_module, module) for module in named_modules(words)
    }
    if loaders and str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    loaders |= {point.value: point.load for point in entry_points(group="sidequest")}
    for module, load in loaders.items():
        try:
            load()
        except Exception as error:  # a module may raise anything
            raise ValueError(f"cannot import {module!r}: {describe(error)}") from error


def named_modules(words: list[str]) -> list[str]:
    """What the `import=` words name."""
    given = [match[1] for word in words if (match := IMPORT.fullmatch(word))]
    return list(dict.fromkeys(module for names in given for module in names.split(",")))


def compose_words(name: str, *words: str) -> Composed:
    """The config `name` with the words of one run.

    Raises:
        ValueError, HydraException: a word is wrong.
    """
    return compose_jobs(name, list(words), sweep=False)[0]


def compose_jobs(name: str, words: list[str], *, sweep: bool) -> list[Composed]:
    """The runs that the words of a command line ask for: one, or every combination of a sweep.

    Raises:
        ValueError, HydraException: a word is wrong.
    """
    register()
    modules, words = named_modules(words), [word for word in words if not IMPORT.fullmatch(word)]
    if modules and "imports" in COMMANDS[name].__dataclass_fields__:
        words.append(f"imports=[{','.join(modules)}]")
    with initialize_config_dir(str(CONFIGS), version_base=None):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        overrides = parser.parse_overrides([word for word in words if not word.startswith(OWN)])
        values = [list(_values(override, sweep)) for override in overrides]
        groups = _group_names(name)
        return [_compose(name, job, groups, parser) for job in itertools.product(*values)]


def sweep_settings(words: list[str]) -> LocalSweep | RaySweep:
    """Where the runs of a sweep run: what the words `sweep=...` and `sweep.key=value` say.

    Raises:
        ValueError, OmegaConfBaseException: an unknown name or a wrong value.
    """
    given = dict(word.split("=", 1) for word in words if word.startswith(("sweep=", "sweep.")))
    name = given.pop("sweep", "local")
    check_choice("sweep", name, SWEEPS)
    values = {key.removeprefix("sweep."): value for key, value in given.items()}
    schema = OmegaConf.structured(SWEEPS[name])
    for key in values:
        check_choice(f"a key of sweep={name}", f"sweep.{key}", [f"sweep.{known}" for known in schema])
    settings = OmegaConf.to_object(OmegaConf.merge(schema, values))
    assert isinstance(settings, LocalSweep | RaySweep)
    return settings


def _values(override: Override, sweep: bool) -> Iterator[str]:
    """The word for each value of a sweep, or the one word."""
    word = str(override.input_line)
    if override.type is not OverrideType.CHANGE:
        raise ValueError(f"cannot read {word!r}: keys are neither added nor removed, give key=value")
    if not override.is_sweep_override():
        yield word
    elif not sweep:
        key, _, several = word.partition("=")
        one = f"aux=[{several}] trains one run with all of them" if key == "aux" else "a list is written key=[a,b]"
        raise ValueError(f"{word} has several values: {one}, and -m runs each of them")
    else:
        values, typed = list(override.sweep_string_iterator()), word.partition("=")[2].split(",")
        if len(typed) == len(values) and override.is_choice_sweep() and "(" not in word:
            values = typed  # as they stand there: 2026_11_27 is not 20261127
        yield from (f"{override.get_key_element()}={value}" for value in values)


def _compose(name: str, words: Sequence[str], groups: list[str], parser: OverridesParser) -> Composed:
    choices: dict[str, str] = {}
    preset, keys = [], {}
    for word in words:
        expanded = expand(word)
        override = parser.parse_override(expanded[0])
        key = override.get_key_element()
        if key in groups:
            _check_choice(name, override)
            preset += expanded
            choices[key] = word.partition("=")[2]
        else:
            keys[key] = override
    untyped = compose(name, preset)
    _check_keys([key for key in keys if key.partition(".")[0] != "aux"], untyped)  # before the tasks load torch
    alone = with_tasks(untyped)
    _check_keys(keys, alone)
    config, tree = alone.copy(), OmegaConf.to_container(alone)
    for key, override in keys.items():
        value = typed_value(override, tree)
        OmegaConf.update(config, key, value)
        if isinstance(value, int | float) and isinstance(OmegaConf.select(config, key), str):
            typed = str(override.input_line).partition("=")[2].strip()
            OmegaConf.update(config, key, typed)  # not the number: a folder called 1e3 or 2026_11_27
    return Composed(config, alone, tuple(words), choices)


def _group_names(name: str) -> list[str]:
    """The groups that the config `name` has."""
    runtime = compose(name, return_hydra_config=True).hydra.runtime
    return sorted(group for group in runtime.choices if not group.startswith("hydra/"))


def _choices(name: str, group: str) -> list[str]:
    """What a command can choose from a group; of the experiments, `pretrain_...` are those of pretrain.py."""
    known = sorted(GlobalHydra.instance().config_loader().get_group_options(group))
    own = name == "pretrain"
    return known if group != "experiment" else [each for each in known if each.startswith("pretrain_") == own]


def _check_choice(name: str, override: Override) -> None:
    """Raise ValueError unless the group has all that is chosen from it."""
    group, value = override.key_or_group, override.value()
    if isinstance(value, list) and group != "aux":
        raise ValueError(f"{group} takes one choice, not a list: -m {group}=a,b runs each of several")
    known = _choices(name, group)
    for choice in value if isinstance(value, list) else [value]:
        if choice not in known:
            raise ValueError(f"unknown {group} {choice!r}: {_known_choice(name, group, str(choice), known)}")


def _known_choice(name: str, group: str, choice: str, known: list[str]) -> str:
    """What an unknown choice may have meant."""
    other = "config" if name == "pretrain" else "pretrain"
    if group == "experiment" and choice in _choices(other, group):
        return f"it is one of {SCRIPTS[other]}"
    similar = similar_env(choice) if group == "env" and not closest(choice, known) else None
    return f"did you mean {similar!r}?" if similar else nearest(choice, known)


def _check_keys(keys: Iterable[str], config: DictConfig) -> None:
    """Raise ValueError unless the config has the dotted keys."""
    tree = OmegaConf.to_container(config)
    for key in keys:
        _check_key(key, tree)


def _check_key(key: str, tree: Any) -> None:
    node, parent = tree, ""
    for part in key.split("."):
        if isinstance(node, list):  # an item of it
            return
        if parent == "aux" and not node:
            raise ValueError(f"unknown key {key!r}: no auxiliary task is chosen, add aux={part}")
        if not isinstance(node, dict) or not node:
            raise ValueError(f"unknown key {key!r}: {parent} is {'empty' if node in (None, {}) else 'a single value'}")
        if part not in node:
            near = closest(key, [*_dotted(node, parent), *_dotted(tree)])
            hint = f"did you mean {near!r}?" if near else nearest(part, node)
            raise ValueError(f"unknown key {key!r}: {hint}{_elsewhere(key)}")
        node, parent = node[part], f"{parent}.{part}".lstrip(".")


def _elsewhere(key: str) -> str:
    """Which commands have a key that this one has not."""
    having = [SCRIPTS[name] for name, kind in COMMANDS.items() if key in {each.name for each in fields(kind)}]
    return f"; it is a key of {', '.join(having)}" if having else ""


def _dotted(tree: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of nested dictionaries."""
    for key, child in tree.items() if isinstance(tree, dict) else ():
        dotted = f"{prefix}.{key}".lstrip(".")
        yield dotted
        yield from _dotted(child, dotted)


def _groups(name: str) -> str:
    register()
    with initialize_config_dir(str(CONFIGS), version_base=None):
        lines = (f"  {group}: {', '.join(_choices(name, group))}\n" for group in _group_names(name))
        return f"group=choice:\n{''.join(lines)}"


def _keys(job: Composed) -> str:
    keys = "".join(f"  {line}\n" for line in OmegaConf.to_yaml(job.config).splitlines())
    return f"key=value, here with what your command line makes of them:\n{keys}"


def _with_checkpoint(name: str, words: list[str]) -> list[str]:
    """The words, with `zoo/pong-dqn` alone read as `checkpoint=zoo/pong-dqn` by the commands that have that key."""
    bare = [word for word in words if "=" not in word and ("/" in word or Path(word).exists())]
    if len(bare) != 1 or "checkpoint" not in {key.name for key in fields(COMMANDS[name])}:
        return words
    if any(word.startswith("checkpoint=") for word in words):
        return words
    return [f"checkpoint={quoted(bare[0])}" if word == bare[0] else word for word in words]


def _line(error: Exception) -> str:
    """One line for an error of Hydra's, or of ours."""
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
