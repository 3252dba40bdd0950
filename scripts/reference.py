"""The reference of configuration keys for the documentation site, made from the configs themselves.

What a key means is the comment beside its field, or the `Args:` of a task. Type and default are those of the field.
The range is what the config says when it refuses a value.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields, replace
from enum import EnumType
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import torch

from aux_tasks import TASKS, TaskSetting
from aux_tasks.config import TaskConfig, options_of
from configs.collect import CollectConfig
from configs.schema import GoalConfig, PretrainConfig
from encoders import ENCODERS, EncoderConfig, build_encoder
from experiment.command_line.composition import COMMANDS, GROUPS, UNIONS, freeze, without_none
from experiment.command_line.overrides import CONFIGS, compose_words
from experiment.command_line.usage import USAGE
from harness.comments import field_comments
from replay import ReplayConfig
from replay.config import RelabelConfig, SyntheticConfig

PARTS = {"collect": CollectConfig, "goal": GoalConfig}  # of train.py, in no group
PARTS |= {"replay.relabel": RelabelConfig, "replay.synthetic": SyntheticConfig}
NESTED = {*UNIONS, EncoderConfig, ReplayConfig, dict[str, TaskConfig], *PARTS.values()}
# `name=0: must be a multiple of 6`, `name must be in [0, 1], got 2`, `unknown name '?': there are a, b`
REFUSAL = r"\b{}\b.*?(?:must be (?:one of )?((?:in [\[(].*?[\])])|[^:]+?)(?:, got|:|$)|there are (.*))"
HEAD = "| key | type | default | allowed | meaning |\n|---|---|---|---|---|\n"


class Key(NamedTuple):
    """A row of a table."""

    name: str
    hint: Any
    default: Any
    allowed: str
    meaning: str


def pages() -> dict[str, str]:
    """Markdown by file name."""
    return {"keys.md": keys_page(), "presets.md": presets_page()}


def keys_page() -> str:
    """Every key of every command."""
    parts = [
        "# Configuration keys\n\n"
        "Give a key as `key=value`. Choose a member of a group as `group=choice`; its own keys are `group.key=value`. "
        "`python train.py --help` lists the keys of a command line with their values, and `--cfg` prints its config. "
        "An unknown key, a wrong type and a value out of range are errors, before anything runs. "
        "A `float` may be written as `1e-3`, an `int` as `400_000`. `null` is no value.\n\n"
        f"```text\n{USAGE}```\n"
    ]
    parts += [f"{title}\n\n{about}{_table(keys)}" for title, about, keys in sections()]
    return "\n".join(parts)


def sections() -> Iterator[tuple[str, str, list[Key]]]:
    """Heading, text and keys of each part of the page."""
    for name, kind in COMMANDS.items():
        example = freeze(compose_words(name, *_required(kind)).config, kind)
        yield f"## {'train' if name == 'config' else name}.py", "", config_keys("", kind, example)
    for group, members in GROUPS.items():
        yield f"## {group}", "", []
        for name, member in members.items():
            yield f"### {group}={name}", f"{_about(member)}\n\n", config_keys(group, member)
    yield "## encoder", _encoders(), config_keys("encoder", EncoderConfig)
    replays = "`replay=uniform`, `prioritized`, `lap`, `synthetic` or, with goals, `hindsight`.\n\n"
    yield "## replay", replays, config_keys("replay", ReplayConfig)
    for name, part in PARTS.items():
        yield f"## {name}", f"{_about(part)}\n\n", config_keys(name, part)
    shared = [key for key in config_keys("aux.<task>", TaskConfig) if not key.name.endswith(".options")]
    yield (
        "## aux",
        "Auxiliary tasks: `aux=rotation`, `aux=[rotation,permutation]` or `aux=none`. All have these keys:\n\n",
        shared,
    )
    for name, task in TASKS.items():
        yield f"### aux={name}", f"{_about(task)}\n\n", task_keys(name)


def presets_page() -> str:
    """Every yaml file of configs/ that sets keys."""
    text = "# Presets\n\nA preset sets keys; a word of the command line overrides it.\n"
    for folder, word in {"experiment": "experiment", "aux": "aux", "encoder": "encoder"}.items():
        for path in sorted((CONFIGS / folder).glob("*.yaml")):
            text += f"\n## {word}={path.stem}\n\n```yaml\n{path.read_text()}```\n"
    return text


def config_keys(prefix: str, kind: type, example: Any = None) -> list[Key]:
    """The keys of a config that are in no group."""
    hints, comments = get_type_hints(kind), field_comments(kind)
    example = example or kind(**{f.name: _example(hints[f.name]) for f in fields(kind) if not _has_default(f)})
    return [
        Key(
            f"{prefix}.{f.name}".lstrip("."),
            hints[f.name],
            _default(f),
            _allowed(f.name, hints[f.name], lambda value, name=f.name: replace(example, **{name: value})),
            comments.get(f.name, ""),
        )
        for f in fields(kind)
        if without_none(hints[f.name]) not in NESTED and f.name != "name"
    ]


def task_keys(name: str) -> list[Key]:
    """The weight and the options of a task."""
    task, told = TASKS[name], _arguments(TASKS[name])
    keys = [Key(f"aux.{name}.weight", float, task.default_weight, "at least 0", "factor of the loss")]
    options = options_of(task)
    for option, (parameter, hint) in options.items():
        allowed = _allowed(option, hint, lambda value, option=option: task(_setting(), **{option: value}))
        keys.append(Key(f"aux.{name}.options.{option}", hint, parameter.default, allowed, told.get(option, "")))
    return keys


def _required(kind: type) -> list[str]:
    """Words that give a command what it has no default for."""
    given = {str: "x", list[str]: "[x]"}
    hints = {f.name: get_type_hints(kind)[f.name] for f in fields(kind) if not _has_default(f)}
    words = [f"{name}={given[hint]}" for name, hint in hints.items() if hint in given]
    return words + ["aux=rotation"] * (kind is PretrainConfig)


@cache
def _setting() -> TaskSetting:
    """A run of four colour frames of 84 pixels and three actions."""
    encoder = build_encoder(EncoderConfig("small"), (12, 84, 84))
    return TaskSetting(encoder, 4, num_actions=3, action_dim=3, gamma=0.99, generator=torch.Generator())


def _about(thing: Any) -> str:
    """The first paragraph of a docstring on one line."""
    return _escaped(inspect.cleandoc(thing.__doc__ or "").partition("\n\n")[0].replace("\n", " ").rstrip(":"))


def _encoders() -> str:
    rows = "".join(f"| `encoder={name}` | {_about(build)} |\n" for name, build in ENCODERS.items())
    return f"| choice | |\n|---|---|\n{rows}\n"


def _table(keys: list[Key]) -> str:
    rows = "".join(
        f"| `{key.name}` | `{_type(key.hint)}` | {_value(key.default)} | {_escaped(key.allowed)} "
        f"| {_escaped(key.meaning)} |\n"
        for key in keys
    )
    return f"{HEAD}{rows}" if keys else ""


def _type(hint: Any) -> str:
    plain = without_none(hint)
    name = "str" if isinstance(plain, EnumType) else getattr(plain, "__name__", str(plain))
    if getattr(plain, "__args__", None):
        name = str(plain).replace("typing.", "")
    return name if plain is hint else f"{name} or null"


def _value(value: Any) -> str:
    if value is MISSING or value == "???":
        return "required"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "`null`" if value is None else "empty" if value == "" else f"`{value}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _default(declared: "Field[Any]") -> Any:
    if declared.default_factory is not MISSING:
        return declared.default_factory()
    return declared.default


def _has_default(declared: "Field[Any]") -> bool:
    return declared.default is not MISSING or declared.default_factory is not MISSING


def _example(hint: Any) -> Any:
    return {int: 1, float: 1.0}.get(without_none(hint), "x")


def _allowed(name: str, hint: Any, build: Callable[[Any], object]) -> str:
    """What the config or the task says when it refuses a value; the members of an enumeration."""
    kind = without_none(hint)
    if isinstance(kind, EnumType):
        return ", ".join(f"`{member.value}`" for member in kind)
    for value in {int: (-1, 0), float: (-1.0, 0.0, 1e9, float("nan")), str: ("?",)}.get(kind, ()):
        try:
            build(value)
        except ValueError as error:
            if told := re.search(REFUSAL.format(name), str(error)):
                return told[1] or told[2]
    return ""


def _arguments(task: type) -> dict[str, str]:
    """What the `Args:` of the docstrings of a class and its bases say of each argument."""
    found: dict[str, str] = {}
    for kind in reversed(task.__mro__):
        doc = inspect.cleandoc(vars(kind).get("__doc__") or "")
        block = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.DOTALL | re.MULTILINE)
        entries = re.findall(
            r"^ {4}([\w, ]+): (.*?)(?=^ {4}\S|\Z)", block[1] if block else "", re.DOTALL | re.MULTILINE
        )
        for names, text in entries:
            found |= {name: " ".join(text.split()) for name in names.split(", ")}
    return found


if __name__ == "__main__":
    for file, content in pages().items():
        Path(file).write_text(content)
