"""Command lines that repeat a run or use its folder, and what a run logs at its end."""

import logging
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from configs.schema import Config, PretrainConfig, RunConfig, flatten
from experiment.command_line.overrides import compose_words, path_word, quoted
from experiment.folders.run_folder import run_folder

log = logging.getLogger("sidequest")

TRAINING_GROUPS = ("env", "agent", "encoder")  # config groups of a training; their key `name` names the chosen member


def training_command(config: Mapping[str, Any]) -> str | None:
    """The `python train.py ...` that repeats a run; None if this version has other keys.

    Args:
        config: every value by dotted key.
    """
    names = {group: config.get(f"{group}.name") for group in TRAINING_GROUPS}
    tasks = sorted({key.split(".")[1] for key in config if key.startswith("aux.")})
    words = import_words(config.get("imports") or [])
    words += [f"{group}={name}" for group, name in names.items()] + [f"aux=[{','.join(tasks)}]"] * bool(tasks)
    try:
        default = flatten(OmegaConf.to_container(compose_words("config", *words).config))
    except (HydraException, OmegaConfBaseException, ValueError):
        return None
    if config.keys() != default.keys():
        return None
    words += [f"{key}={_value(value)}" for key, value in config.items() if value != default[key] and key != "run_dir"]
    return f"python train.py {shlex.join(words)}"


def follow_up(config: RunConfig, program: str, *words: str) -> str:
    """The command line of a program for the folder of a run, `python evaluate.py checkpoint=runs/...`."""
    own = [*import_words(config.imports), path_word("checkpoint", run_folder(config))]
    return f"{program} {shlex.join([*own, *words])}"


def start_from(config: PretrainConfig, encoder: Path) -> str:
    """The `python train.py ...` of an agent that starts from the encoder of a pretraining."""
    name = f"encoder={config.encoder.name}"
    preset = OmegaConf.to_container(compose_words("config", name).config.encoder)
    assert isinstance(preset, dict)
    changed = {key: value for key, value in asdict(config.encoder).items() if value != preset[key] and key != "init"}
    words = [*import_words(config.imports), name, f"frame_stack={config.frame_stack}"]
    words += [f"encoder.{key}={_value(value)}" for key, value in changed.items()]
    return f"python train.py {shlex.join([*words, path_word('encoder.init', encoder)])}"


def import_words(modules: Sequence[str]) -> list[str]:
    """The word that imports the modules of a run, if there are any."""
    return [f"import={','.join(modules)}"] if modules else []


# --- at the end of a run ---


def log_finished(step: int, config: Config | PretrainConfig) -> None:
    """Log how to continue a run that has ended."""
    if step >= config.steps:
        log.info("finished: all %s steps are done; give steps=%s to continue", f"{config.steps:,}", 2 * step)
    elif isinstance(config, Config):
        log.info("finished: until_score=%g was reached; give until_score=null to continue", config.until_score)


def log_outputs(paths: Mapping[str, Path]) -> None:
    """Log the files and folders that exist, by name."""
    for what, path in paths.items():
        if path.exists():
            log.info("%-13s %s", what.removesuffix(".safetensors"), path)


def log_views(run_dir: Path) -> None:
    """Log the commands that compare a run with others and open its log."""
    arm = run_dir.parent if re.fullmatch(r"s\d+", run_dir.name) else run_dir
    log.info("compare       python compare.py %s", shlex.quote(str(arm.parent)))
    log_tensorboard(run_dir)


def log_tensorboard(run_dir: Path) -> None:
    """Log the command that opens the log of a run."""
    log.info("TensorBoard   tensorboard --logdir %s", shlex.quote(str(run_dir)))


def _value(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool | int | float):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, list):
        return f"[{','.join(map(_value, value))}]"
    return quoted(str(value))
