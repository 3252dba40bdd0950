"""The folder of a run: its name, its lock, and the config in it."""

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import OmegaConf

from configs.schema import Config, PretrainConfig, RunConfig, flat, flatten
from configs.sources import FramesConfig
from envs import EnvConfig
from experiment.command_line.composition import Composed, complete, freeze, read_config, write_config
from harness.derive import shorten
from harness.errors import first_line
from harness.plain_yaml import read_plain
from harness.process import exclusive

# Keys that may change when a run continues, since they do not change the learning.
MAY_CHANGE = {"steps", "until_score", "eval_every", "eval_every_episodes", "eval_episodes", "imports", "run_dir"}
MAY_CHANGE |= {"threads", "collect.address", "collect.cpus", "milestones"}
NAME_GROUPS = ("experiment", "encoder", "replay", "collect")  # groups whose chosen member is a part of the name


C = TypeVar("C", bound=RunConfig)


def with_run_dir(composed: Composed, kind: type[C]) -> C:
    """The config of a run with its folder. Runs that differ in any setting get different folders.

    Raises:
        ValueError: a value is missing, of the wrong type or out of range.
    """
    config = freeze(composed.config, kind)
    if config.run_dir:
        return config
    preset = flatten(OmegaConf.to_container(composed.preset))
    return replace(config, run_dir=run_dir_name(config, preset, composed.choices))


def run_dir_name(config: RunConfig, preset: Mapping[str, Any], choices: Mapping[str, str]) -> str:
    """`runs/<env>/<agent>+<tasks>[-<overrides>]/s<seed>`, or `runs/pretrain/<source>/<tasks>[-<overrides>]/s<seed>`.

    Args:
        config: the run.
        preset: every value by dotted key, before overrides of single keys.
        choices: the group members that the command line chooses.
    """
    if isinstance(config, Config):
        label = config.env.label
        parts = [label, "+".join([config.agent.name, *config.aux])]
    else:
        label = config.env.label if isinstance(config.source, FramesConfig) else ""
        parts = ["pretrain", "-".join(filter(None, [config.source.name, label])), "+".join(config.aux)]
    parts[-1] = "-".join([parts[-1], *(choices[group] for group in NAME_GROUPS if group in choices)])
    if overrides := _overrides(config, preset):
        parts[-1] += f"-{overrides}"
    return "/".join(["runs", *parts, f"s{config.seed}"])


def _overrides(run: RunConfig, preset: Mapping[str, Any]) -> str:
    """`learning_rate_0.001-rotation.weight_0.5`: the changed values, by the shortest unique end of each key."""
    changed, config = [], flat(run)
    for key in sorted(config):
        value = config[key]
        if key in MAY_CHANGE | {"seed", "device"} or (key in preset and preset[key] == value):
            continue
        of_env = key.removeprefix("env.")
        if of_env != key and _label_shows(run.env, of_env, preset[key]):
            continue
        words = key.replace(".options.", ".").split(".")
        ends = [".".join(words[i:]) for i in reversed(range(len(words)))]
        taken = [other.replace(".options.", ".") for other in config if other != key]
        end = next((e for e in ends if not any(f".{o}".endswith(f".{e}") for o in taken)), key)
        changed.append(f"{end}_{_plain(value)}")
    return shorten("-".join(changed))


def _label_shows(env: EnvConfig, key: str, preset: Any) -> bool:
    """Whether the label of an environment would differ with the preset's value of a key."""
    try:
        return replace(env, **{key: preset}).label != env.label
    except ValueError:  # that value does not fit the other keys
        return False


def _plain(value: Any) -> str:
    """A value without characters that are special to shells, file systems or Hydra."""
    text = "_".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return re.sub(r"[^\w.+-]+", "_", text).strip("_")


@contextmanager
def claim_run_dir(config: RunConfig) -> Iterator[Path]:
    """Make the folder of a run and write its config, or check that the folder holds this run. Lock it for the block.

    The keys in `MAY_CHANGE` may differ: a longer run may continue a shorter one.

    Raises:
        ValueError: another process uses the folder, or it holds a run with other settings, or files of no run.
    """
    run_dir = run_folder(config)
    run_dir.mkdir(parents=True, exist_ok=True)
    _check_no_links(run_dir)
    with exclusive(run_dir):
        _leave_config(config, run_dir)
        yield run_dir


def _check_no_links(run_dir: Path) -> None:
    """Raise ValueError if the folder holds a link or special file, through which a run could write elsewhere or hang.

    Only `checkpoints` may be a link, to a larger disk: its files are verified and never overwritten.
    """
    for folder, folders, files in os.walk(run_dir):
        if Path(folder) == run_dir and "checkpoints" in folders:
            folders.remove("checkpoints")
        for path in (Path(folder, name) for name in folders + files):
            kind = path.lstat().st_mode
            if not (stat.S_ISDIR(kind) or stat.S_ISREG(kind)) and path != run_dir / "checkpoints":
                what = "a link" if stat.S_ISLNK(kind) else "a pipe, a device or a socket"
                raise ValueError(f"{path} is {what}, which no run leaves in its folder: remove it, or give run_dir=...")


def _leave_config(config: RunConfig, run_dir: Path) -> None:
    path, config = run_dir / "config.yaml", complete(config)
    if path.is_file():
        old, new = flat(read_config(path, type(config))), flat(config)
        for key in old | new:
            if old.get(key) != new.get(key) and key not in MAY_CHANGE:
                holds = f"with {key}={old[key]}" if key in old else f"without {key}"
                raise ValueError(
                    f"{run_dir} holds a run {holds}, this one has {new.get(key, 'none')}: "
                    "give run_dir=... or remove that folder"
                )
    write_config(config, path)


def run_folder(config: RunConfig) -> Path:
    """The folder of a run, which need not exist yet."""
    return Path(config.run_dir or run_dir_name(config, flat(config), {}))


def read_run(folder: Path) -> RunConfig:
    """The config of a run of train.py or of pretrain.py.

    Raises:
        ValueError: missing, or not a config of this version.
    """
    path = folder / "config.yaml"
    try:
        pretrained = path.is_file() and "source" in read_plain(path)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {first_line(error)}") from error
    return read_config(path, PretrainConfig) if pretrained else read_config(path, Config)
