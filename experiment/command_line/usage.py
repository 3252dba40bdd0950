"""The text of `--help`: options, groups, and every key with its value and meaning."""

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_type_hints

import yaml
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from aux_tasks.config import TaskConfig
from experiment.command_line.composition import COMMANDS, UNIONS, Composed, member_of, register, without_none
from experiment.command_line.overrides import CONFIGS, choices, group_names
from harness.comments import field_comments

USAGE = """\
Options:
  -m, --multirun   run every combination of key=a,b and key=range(0,5)
  sweep.jobs=2     how many of them train at once; default: one for each core
  sweep=ray        train them on a Ray cluster: sweep.address, sweep.cpus, sweep.gpus and sweep.retries of each run
  --cfg            print the composed config and stop
  import=module    import a module first, which may add auxiliary tasks, encoders and environments
"""


def help_text(name: str, job: Composed, about: str) -> str:
    """What `--help` prints for a command: its keys have the values that the rest of the command line gives them."""
    with initialize_config_dir(str(CONFIGS), version_base=None):
        register()
        groups = "".join(f"  {group}: {', '.join(choices(name, group))}\n" for group in group_names(name))
    chosen = f"group=choice:\n{groups}\n" if groups else ""
    values = OmegaConf.to_container(job.config, enum_to_str=True)
    assert isinstance(values, dict)
    keys = "".join(f"  {line}\n" for line in _explained(values, COMMANDS[name]))
    return f"{about.strip()}\n\n{USAGE}\n{chosen}key=value, here with what your command line makes of them:\n{keys}"


def _explained(values: Mapping[Any, Any], kind: Any) -> Iterator[str]:
    """Lines of yaml, each with the comment of its field in the config class `kind`."""
    kind = member_of(kind, values) if kind in UNIONS else kind
    known = is_dataclass(kind) and isinstance(kind, type)
    hints, comments = (get_type_hints(kind), field_comments(kind)) if known else ({}, {})
    if kind == dict[str, TaskConfig]:
        hints = dict.fromkeys(values, TaskConfig)
    for key, value in values.items():
        comment = f"  # {comments[key]}" if key in comments else ""
        if not isinstance(value, dict) or not value:
            shown = yaml.safe_dump(value, default_flow_style=True, width=1_000).removesuffix("...\n").strip()
            yield f"{key}: {shown}{comment}"
            continue
        yield f"{key}:{comment}"
        yield from (f"  {line}" for line in _explained(value, without_none(hints.get(key))))
