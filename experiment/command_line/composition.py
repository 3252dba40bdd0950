"""Typed, frozen configs: from what Hydra composed, from the file in a run folder, and back to yaml."""

import re
from collections.abc import Container, Mapping
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import Field, asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import configs
from agents import AGENTS, AgentConfig
from agents.peers import PEERS, PeerConfig
from aux_tasks import TASKS, TaskConfig
from aux_tasks.config import options_of
from configs.collect import COLLECTORS, CollectConfig
from configs.schema import AnyConfig, CompareConfig, Config, EvaluateConfig, PretrainConfig, ProbeConfig, flatten
from configs.sources import SOURCES, SourceConfig
from encoders import ENCODERS, EncoderConfig
from envs import ENVS, EnvConfig
from harness.derive import derive, shorten
from harness.errors import first_line
from harness.files import replacing
from harness.plain_yaml import read_plain
from harness.suggest import closest, nearest
from replay import ReplayConfig

if TYPE_CHECKING:
    from aux_tasks import AuxTask

C = TypeVar("C", bound=AnyConfig)

LARGEST = 2**63 - 1  # the largest whole number: it may become the size of an array

COMMANDS: dict[str, type[AnyConfig]] = {
    "config": Config,
    "pretrain": PretrainConfig,
    "probe": ProbeConfig,
    "evaluate": EvaluateConfig,
    "compare": CompareConfig,
}
GROUPS: dict[str, Mapping[str, type]] = {"env": ENVS, "agent": {**AGENTS, **PEERS}, "source": SOURCES}
# A key with one of these types holds a member of the group; the key `name` in it names the member.
UNIONS: dict[Any, Mapping[str, type]] = {
    EnvConfig: GROUPS["env"],
    AgentConfig | PeerConfig: GROUPS["agent"],
    SourceConfig: GROUPS["source"],
}


@dataclass(frozen=True)
class Composed:
    """The config of a command line."""

    config: DictConfig
    preset: DictConfig  # with the group choices alone, without overrides of single keys
    words: tuple[str, ...]
    choices: dict[str, str]  # of groups, as given: {"env": "atari/pong", "aux": "[rotation,permutation]"}
    apart: tuple[str, ...] = ()  # the words that not all runs of its sweep share

    @property
    def suffix(self) -> str:
        """What sets the names of its files apart from those of its sweep, `-seed=1`; empty for one run."""
        shown = "protocol=|checkpoint=(?!.*[.])"  # by the name or the folder of the file
        words = [word for word in self.apart if not re.match(shown, word)]
        text = "".join(f"-{word}" for word in words)
        plain = re.sub(r"[^-+,.=0-9A-Za-z_]", "_", text)
        return shorten(plain if plain == text else f"{plain}-{derive(0, text):016x}")

    def check_outputs(self, *keys: str) -> None:
        """Raise ValueError if the other runs of its sweep would write the file of one of the keys, too."""
        for key in keys:
            if (path := self.config[key]) and self.apart and not any(word.startswith(f"{key}=") for word in self.apart):
                raise ValueError(f"{key}={path}: all runs of this sweep would write it, leave {key} out")


def register() -> None:
    """Register every group and its types with Hydra, so that unknown keys and wrong types are errors."""
    for command, kind in COMMANDS.items():
        _add("schema", command, kind)  # type: ignore[arg-type]
    _add("schema", "encoder", EncoderConfig)
    for group, members in GROUPS.items():
        for name, kind in members.items():
            _add(group, name, kind)  # type: ignore[arg-type]
    for name in ENCODERS:
        _add("encoder", name, EncoderConfig, name=name)
    _add("replay", "uniform", ReplayConfig)
    _add("replay", "prioritized", ReplayConfig, prioritized=True)
    _add("replay", "lap", ReplayConfig, prioritized=True, lap=True, alpha=0.4)  # the paper's alpha
    for name in COLLECTORS:
        _add("collect", name, CollectConfig, name=name)
    for name in TASKS:
        _add("aux", name, package=f"aux.{name}")  # `with_tasks` gives the keys of those that are chosen
    _add("aux", "none", package="aux")


@cache
def _add(group: str, member: str, kind: type | None = None, *, package: str | None = None, **values: Any) -> None:
    """Add a member with the keys of `kind`, once, unless a yaml file in configs/ defines it."""
    if not (Path(configs.__path__[0]) / group / f"{member}.yaml").exists():
        node: Any = _node(kind) if kind else {}
        ConfigStore.instance().store(group=group, name=member, node=node(**values) if values else node, package=package)


def with_tasks(composed: DictConfig) -> DictConfig:
    """The config with the keys of its auxiliary tasks, with the types that the tasks' constructors declare.

    Raises:
        ValueError, OmegaConfBaseException: an unknown task, option or type.
    """
    typed = composed.copy()
    for name in composed.get("aux") or {}:
        if name not in TASKS:
            raise ValueError(f"unknown auxiliary task {name!r}: {nearest(name, TASKS)}")
        typed.aux[name] = OmegaConf.merge(OmegaConf.structured(_task_node(TASKS[name])), composed.aux[name])
    return typed


def freeze(composed: DictConfig, kind: type[C]) -> C:
    """The frozen config of a command.

    Raises:
        ValueError: a value is missing, of the wrong type or out of range.
    """
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        for key, value in flatten(values).items():
            for number in value if isinstance(value, list) else [value]:
                if isinstance(number, int) and abs(number) > LARGEST:
                    raise ValueError(f"{key}={value}: must be at most {LARGEST}")
        config = _frozen(kind, values)
        assert isinstance(config, kind)
        return config
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key}=... is missing") from error
    except (OmegaConfBaseException, TypeError) as error:
        raise ValueError(first_line(error)) from error


def _frozen(hint: Any, value: Any) -> Any:
    """`value`, converted to the type `hint`."""
    kind = without_none(hint)
    if value is None:
        return None
    if kind in UNIONS:
        kind = member_of(kind, value)
    if kind == dict[str, TaskConfig]:
        return {task: _task_config(task, given) for task, given in value.items()}
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        for key in fields(kind):
            if value.get(key.name) == "" != key.default:
                raise ValueError(f"{key.name}= is empty: give a value, or leave it out")
        return kind(**{name: _frozen(hints.get(name), part) for name, part in value.items()})  # type: ignore[operator]
    return value


def _task_config(name: str, values: Mapping[str, Any]) -> TaskConfig:
    try:
        return TaskConfig(**values)
    except ValueError as error:
        raise ValueError(f"aux.{name}.{error}") from error


def member_of(union: type, values: Mapping[str, Any]) -> type:
    """The config class of the group member that `values` name.

    Raises:
        ValueError: there is no such member.
    """
    members = UNIONS[union]
    name = values.get("name")
    if name not in members:
        raise ValueError(f"name={name}: there are {', '.join(members)}")
    return members[str(name)]


@cache
def _node(kind: Any) -> type:
    """The same dataclass for Hydra, not frozen: overrides cannot change a frozen one. Groups are filled in later."""
    hints = get_type_hints(kind)

    def member(declared: "Field[Any]") -> tuple[str, Any, Any]:
        hint = hints[declared.name]
        kind = without_none(hint)
        if kind in UNIONS:
            return declared.name, Any, field(default=None if kind is not hint else MISSING)
        if kind == dict[str, TaskConfig]:
            return declared.name, dict[str, Any], field(default_factory=dict)
        if is_dataclass(kind):
            node = _node(kind)  # type: ignore[arg-type]
            hint = node if kind is hint else node | None
            if declared.default_factory is not NO_DEFAULT:
                return declared.name, hint, field(default_factory=node)
        default = declared.default
        if default is NO_DEFAULT and declared.default_factory is NO_DEFAULT and not is_dataclass(kind):
            default = MISSING
        return declared.name, hint, field(default=default, default_factory=declared.default_factory)

    return make_dataclass(kind.__name__, [member(declared) for declared in fields(kind)], kw_only=True)


@cache
def _task_node(task: "type[AuxTask]") -> type:
    """`TaskConfig` for Hydra, with the options of one task and the types that its constructor declares.

    Raises:
        ValueError: an option has no default, or no type that a config can have.
    """
    options = make_dataclass(
        f"{task.__name__}Options",
        [(name, hint, field(default=p.default)) for name, (p, hint) in options_of(task).items()],
    )
    try:
        OmegaConf.structured(options)
    except OmegaConfBaseException as error:
        raise ValueError(f"{task.__qualname__}: an option cannot be in a config: {first_line(error)}") from error
    shared = [(f.name, get_type_hints(TaskConfig)[f.name], field(default=f.default)) for f in fields(TaskConfig)]
    members = [member for member in shared if member[0] not in ("weight", "options")]
    weight = ("weight", float, field(default=task.default_weight))
    return make_dataclass("TaskConfig", [weight, *members, ("options", options, field(default_factory=options))])


def complete(config: C) -> C:
    """The config with every option of its tasks; options that were left out have their defaults."""
    aux = getattr(config, "aux", None)
    if not aux:
        return config
    defaults = {name: {key: p.default for key, (p, _) in options_of(TASKS[name]).items()} for name in aux}
    tasks = {name: replace(task, options={**defaults[name], **task.options}) for name, task in aux.items()}
    return replace(config, aux=tasks)  # type: ignore[arg-type]


def without_none(hint: Any) -> Any:
    """`X` for `X | None`; any other type unchanged."""
    members = get_args(hint)
    if NoneType not in members:
        return hint
    return next(member for member in members if member is not NoneType)


def read_config(path: Path, kind: type[C]) -> C:
    """The config in the folder of a run.

    Raises:
        ValueError: missing, or not a config of this version.
    """
    if not path.exists():
        raise ValueError(f"{path} does not exist: {_runs_near(path.parent)}")
    try:
        loaded = read_plain(path)
        if "source" in loaded and "source" not in get_type_hints(kind):
            raise UnknownNameError("is of a pretraining, not of an agent: give the folder of a training")
        _check_names(loaded)
        schema = OmegaConf.structured(_node(kind))  # type: ignore[arg-type]
        for name, hint in get_type_hints(kind).items():
            if (union := without_none(hint)) in UNIONS and loaded.get(name) is not None:
                schema[name] = OmegaConf.structured(_node(member_of(union, loaded[name])))
        for task in loaded.get("aux", {}):
            schema.aux[task] = OmegaConf.structured(_task_node(TASKS[task]))
        _check_bools(loaded, OmegaConf.to_container(schema))
        return freeze(OmegaConf.merge(schema, loaded), kind)  # type: ignore[arg-type]
    except UnknownNameError as error:
        raise ValueError(f"{path} {error}") from error
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a config of this version: {first_line(error)}") from error


def _runs_near(folder: Path) -> str:
    """A hint for a path that holds no run: the nearest folder that does."""
    if folder.is_file() and (folder.parent / "config.yaml").exists():
        return f"give the folder {folder.parent}"
    if folder.is_dir():
        near = [str(path.parent) for depth in (1, 2, 3) for path in sorted(folder.glob("*/" * depth + "config.yaml"))]
    else:
        sibling = closest(folder.name, (path.parent.name for path in folder.parent.glob("*/config.yaml")))
        near = [str(folder.with_name(sibling))] if sibling else []
    return f"did you mean {near[0]}?" if near else "expected a run folder or a folder of zoo/"


def _check_bools(given: Any, declared: Any, prefix: str = "") -> None:
    """Raise ValueError unless every boolean key has a boolean value: OmegaConf would read 2 as true."""
    if not (isinstance(given, dict) and isinstance(declared, dict)):
        return
    for name, value in given.items():
        if isinstance(declared.get(name), bool) and not isinstance(value, bool):
            raise ValueError(f"{prefix}{name}={value}: must be true or false")
        _check_bools(value, declared.get(name), f"{prefix}{name}.")


class UnknownNameError(ValueError):
    """A config names a group member or a task that is not registered."""


def _check_names(loaded: Mapping[str, Any]) -> None:
    """Raise UnknownNameError unless every group member and task that a config names is registered.

    The message names the modules that the run imported. They are never imported here: the file may be anybody's.
    """
    groups: dict[str, Container[str]] = {**GROUPS, "encoder": ENCODERS}
    chosen = [(group, loaded[group].get("name"), known) for group, known in groups.items() if loaded.get(group)]
    chosen += [("aux", task, TASKS) for task in loaded.get("aux") or {}]
    recorded = [str(module) for module in loaded.get("imports") or [] if re.fullmatch(r"[\w.]+", str(module))]
    for group, name, known in chosen:
        if name is not None and name not in known:
            modules = ",".join(recorded)[:80] or "my_module"
            what = f"{group} {str(name)[:80]!r}"
            raise UnknownNameError(f"needs {what}: give import={modules}, the module that defines it")


def write_config(config: AnyConfig, path: Path) -> None:
    """Write every key of a run as yaml, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.create(asdict(config))))
