"""Command lines that repeat a run, or that use its folder."""

import shlex
from collections.abc import Mapping
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.schema import RunConfig, flatten
from experiment.command_line.overrides import compose_words, path_word, quoted
from experiment.folders.run_folder import run_folder

TRAINING_GROUPS = ("env", "agent", "encoder")  # config groups of a training; their key `name` names the chosen member


def training_command(config: Mapping[str, Any]) -> str | None:
    """The `python train.py ...` that repeats a run; None if this version has other keys.

    Args:
        config: every value by dotted key.
    """
    names = {group: config.get(f"{group}.name") for group in TRAINING_GROUPS}
    tasks = sorted({key.split(".")[1] for key in config if key.startswith("aux.")})
    words = [f"import={','.join(config['imports'])}"] if config.get("imports") else []
    words += [f"{group}={name}" for group, name in names.items()] + [f"aux=[{','.join(tasks)}]"] * bool(tasks)
    try:
        default = flatten(OmegaConf.to_container(compose_words("config", *words).config))
    except (HydraException, OmegaConfBaseException, ValueError):
        return None
    config = {key: value for key, value in config.items() if value != {}}  # no auxiliary tasks
    default = {key: value for key, value in default.items() if value != {}}
    if config.keys() != default.keys():
        return None
    words += [f"{key}={_value(value)}" for key, value in config.items() if value != default[key] and key != "run_dir"]
    return f"python train.py {shlex.join(words)}"


def follow_up(config: RunConfig, program: str, *words: str) -> str:
    """The command line of a program for the folder of a run, `python evaluate.py checkpoint=runs/...`."""
    modules = [f"import={','.join(config.imports)}"] if config.imports else []
    return f"{program} {shlex.join([*modules, path_word('checkpoint', run_folder(config)), *words])}"


def _value(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return quoted(str(value))
