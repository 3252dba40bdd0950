"""Words of a command line: their short forms, their types, and the configs that Hydra composes from them."""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf

import configs
from envs import ENVS
from experiment.command_line.composition import COMMANDS, Composed, register, with_tasks
from harness.suggest import closest, nearest

SHORTHAND = re.compile(r"env=(\w+)/([\w-]+)")
GAME = re.compile(r"(source=frames)/(\w+)")
GYMNASIUM = re.compile(r"(?:ALE/)?(\w+?)(?:NoFrameskip|Deterministic)?-v\d+")  # of Atari: ALE/Pong-v5
CONFIGS = Path(configs.__path__[0])
SCRIPTS = {name: f"{'train' if name == 'config' else name}.py" for name in COMMANDS}
SWEEP = ("sweep=", "sweep.")  # how the words of a sweep begin, which are no keys of a config
IMPORT = re.compile(r"imports?=\[?(.*?)\]?")
OPTIONS = {"--help": "--help", "-h": "--help", "--multirun": "--multirun", "-m": "--multirun", "--cfg": "--cfg"}


def expand(word: str) -> list[str]:
    """The words that a short form stands for: `env=dmc/walker_walk` is `env=dmc env.domain=walker env.task=walk`.

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
    """The text as a quoted string in Hydra's grammar."""
    escaped = re.sub(r"(\\+)(?='|$)", r"\1\1", text).replace("'", "\\'")
    return f"'{escaped}'"


def path_word(key: str, path: Path) -> str:
    """`key=path` in Hydra's grammar."""
    text = str(path)
    return f"{key}={text if re.fullmatch(r'[-+./0-9:@A-Za-z_]+', text) else quoted(text)}"


def with_keys(name: str, words: list[str]) -> list[str]:
    """The words, with bare paths as values of a key: `runs=[...]` of a comparison, `checkpoint=...` elsewhere."""
    return _with_runs(words) if name == "compare" else _with_checkpoint(name, words)


def _with_runs(words: list[str]) -> list[str]:
    paths, rest = [], []
    for word in words:
        key, equals, value = word.partition("=")
        if equals and re.fullmatch(r"[\w.]+", key) and not os.path.exists(word):
            rest.append(f"{key}={quoted(value)}" if key == "baseline" and value[:1] not in "'\"" else word)
        else:
            paths.append(quoted(word))
    return [*rest, f"runs=[{','.join(paths)}]"] if paths else rest


def _with_checkpoint(name: str, words: list[str]) -> list[str]:
    bare = [word for word in words if "=" not in word and ("/" in word or os.path.exists(word))]
    if not bare or "checkpoint" not in keys_of(name):
        return words
    if len(bare) > 1:
        raise ValueError(f"one checkpoint at a time, got {', '.join(bare)}; -m checkpoint={','.join(bare)} takes each")
    if any(word.startswith("checkpoint=") for word in words):
        return words
    return [f"checkpoint={quoted(bare[0])}" if word == bare[0] else word for word in words]


def similar_env(name: str) -> str | None:
    """`atari/pong` for `pong`, `ALE/Pong-v5` and `PongNoFrameskip-v4`; None if no environment has a similar name."""
    match = GYMNASIUM.fullmatch(name)
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", match[1]).lower() if match else name
    members = {member: f"{family}/{member}" for family, kind in ENVS.items() for member in kind.members()}
    return members.get(closest(plain, members) or "")


def typed_value(override: Override, tree: Any) -> Any:
    """The value of a word, converted to the type of its key: a whole number may be written `1e6`.

    Args:
        override: the parsed word.
        tree: the values so far, as nested dictionaries.

    Raises:
        ValueError: the key is boolean and the value is not.
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
        ValueError: an option is unknown; for `--experiment pong_cpu` the message gives `experiment=pong_cpu`.
    """
    words = [*argv, ""]
    for word, after in itertools.pairwise(words):
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


def named_modules(words: list[str]) -> list[str]:
    """The modules that the `import=` words name."""
    given = [match[1] for word in words if (match := IMPORT.fullmatch(word))]
    return list(dict.fromkeys(module for names in given for module in names.split(",")))


def compose_words(name: str, *words: str) -> Composed:
    """The config `name` with the words of one run applied.

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
    if modules and "imports" in keys_of(name):
        words.append(f"imports=[{','.join(modules)}]")
    with initialize_config_dir(str(CONFIGS), version_base=None):
        parser = OverridesParser.create(GlobalHydra.instance().config_loader())
        overrides = parser.parse_overrides([word for word in words if not word.startswith(SWEEP)])
        values = [list(_values(override, sweep)) for override in overrides]
        groups = group_names(name)
        jobs = [_compose(name, job, groups, parser) for job in itertools.product(*values)]
    shared = set(jobs[0].words).intersection(*(job.words for job in jobs))
    return [replace(job, apart=tuple(word for word in job.words if word not in shared)) for job in jobs]


def repeating(argv: Sequence[str], job: Composed) -> list[str]:
    """The words of a command line that repeat one run of it."""
    return [*(word for word in argv if IMPORT.fullmatch(word)), *job.words] if job.apart else list(argv)


def _values(override: Override, sweep: bool) -> Iterator[str]:
    """One word for each value of a sweep, or the word itself."""
    word = str(override.input_line)
    if override.type is not OverrideType.CHANGE:
        raise ValueError(f"cannot read {word!r}: keys are neither added nor removed, give key=value")
    if not override.is_sweep_override():
        yield word
    elif not sweep:
        key, _, several = word.partition("=")
        together = key == "aux" and "none" not in several.split(",")
        one = f"aux=[{several}] trains one run with all of them" if together else "a list is written key=[a,b]"
        raise ValueError(f"{word} has several values: {one}, and -m runs each of them")
    else:
        values, typed = list(override.sweep_string_iterator()), word.partition("=")[2].split(",")
        if len(typed) == len(values) and override.is_choice_sweep() and "(" not in word:
            values = typed  # as typed: Hydra would make 20261127 of 2026_11_27
        if not values:
            raise ValueError(f"{word} has no value")
        yield from (f"{override.get_key_element()}={value}" for value in values)


def _compose(name: str, words: Sequence[str], groups: list[str], parser: OverridesParser) -> Composed:
    chosen: dict[str, str] = {}
    preset, keys = [], {}
    for word in words:
        expanded = expand(word)
        override = parser.parse_override(expanded[0])
        key = override.get_key_element()
        if key in groups:
            _check_choice(name, override)
            preset += expanded
            chosen[key] = word.partition("=")[2]
        else:
            keys[key] = override
    untyped = compose(name, preset)
    _check_keys([key for key in keys if key.partition(".")[0] != "aux"], untyped)  # before the tasks load torch
    composed = with_tasks(untyped)
    _check_keys(keys, composed)
    config, tree = composed.copy(), OmegaConf.to_container(composed)
    for key, override in keys.items():
        value = typed_value(override, tree)
        OmegaConf.update(config, key, value)
        if isinstance(value, int | float) and isinstance(OmegaConf.select(config, key), str):
            typed = str(override.input_line).partition("=")[2].strip()
            OmegaConf.update(config, key, typed)  # not the number: a folder called 1e3 or 2026_11_27
    return Composed(config, composed, tuple(words), chosen)


@cache
def group_names(name: str) -> list[str]:
    """The config groups of the config `name`."""
    runtime = compose(name, return_hydra_config=True).hydra.runtime
    return sorted(group for group in runtime.choices if not group.startswith("hydra/"))


def choices(name: str, group: str) -> list[str]:
    """The members of a group that a command can choose; of the experiments, `pretrain_...` are those of pretrain.py."""
    known = sorted(GlobalHydra.instance().config_loader().get_group_options(group))
    own = name == "pretrain"
    return known if group != "experiment" else [each for each in known if each.startswith("pretrain_") == own]


def _check_choice(name: str, override: Override) -> None:
    """Raise ValueError unless the group has every chosen member."""
    group, value = override.key_or_group, override.value()
    if isinstance(value, list) and group != "aux":
        raise ValueError(f"{group} takes one choice, not a list: -m {group}=a,b runs each of several")
    known, chosen = choices(name, group), value if isinstance(value, list) else [value]
    if len(chosen) > 1 and ("none" in chosen or len({*map(str, chosen)}) < len(chosen)):
        raise ValueError(f"{override.input_line}: leave out `none`, and name each task once")
    for choice in chosen:
        if choice not in known:
            raise ValueError(f"unknown {group} {choice!r}: {_known_choice(name, group, str(choice), known)}")


def _known_choice(name: str, group: str, choice: str, known: list[str]) -> str:
    """A suggestion for an unknown choice."""
    other = "config" if name == "pretrain" else "pretrain"
    if group == "experiment" and choice in choices(other, group):
        return f"it is one of {SCRIPTS[other]}"
    similar = similar_env(choice) if group == "env" and not closest(choice, known) else None
    return f"did you mean {similar!r}?" if similar else nearest(choice, known)


def _check_keys(keys: Iterable[str], config: DictConfig) -> None:
    """Raise ValueError unless the config has all dotted keys."""
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
            told = f"empty, choose one with {parent}=..." if node in (None, {}) else "a single value"
            raise ValueError(f"unknown key {key!r}: {parent} is {told}")
        if part not in node:
            near = closest(key, [*_dotted(node, parent), *_dotted(tree)])
            hint = f"did you mean {near!r}?" if near else nearest(part, node)
            raise ValueError(f"unknown key {key!r}: {hint}{_elsewhere(key)}")
        node, parent = node[part], f"{parent}.{part}".lstrip(".")


def keys_of(name: str) -> set[str]:
    """The keys of a command, without those below them."""
    return {key.name for key in fields(COMMANDS[name])}


def _elsewhere(key: str) -> str:
    """The commands that have a key which this command lacks."""
    having = [SCRIPTS[name] for name in COMMANDS if key in keys_of(name)]
    return f"; it is a key of {', '.join(having)}" if having else ""


def _dotted(tree: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of nested dictionaries."""
    if not isinstance(tree, dict):
        return
    for key, child in tree.items():
        dotted = f"{prefix}.{key}".lstrip(".")
        yield dotted
        yield from _dotted(child, dotted)
