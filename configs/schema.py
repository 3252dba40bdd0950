"""Every key of a run, with its type and default. The yaml files beside this one only override."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from agents import AGENTS
from aux_tasks import TaskConfig
from encoders import EncoderConfig
from envs import ENVS, AtariConfig, DmcConfig, EnvConfig
from replay import ReplayConfig


@dataclass(frozen=True)
class Config:
    """A run. Steps are agent steps, summed over the environment copies."""

    env: Any  # one of ENVS
    agent: Any  # one of AGENTS
    encoder: EncoderConfig
    replay: ReplayConfig
    aux: dict[str, TaskConfig] = field(default_factory=dict)
    seed: int = 0
    device: str = "auto"  # auto, cpu or cuda
    threads: int = 0  # of torch; 0: the cores this process may use
    frame_stack: int = 4
    gamma: float = 0.99
    clip_reward: bool = True  # for the learner; scores stay raw
    steps: int = 400_000
    until_score: float | None = None  # end at the first checkpoint where the last ten training games average this
    learning_starts: int = 4_000
    steps_per_update: int = 4
    batch_size: int = 32
    log_every: int = 1_000
    diagnose_every: int = 10_000  # gradient cosines, feature rank, pictures of what the heads see; 0: never
    checkpoint_every: int = 50_000  # all copies start anew here, so that resuming is exact
    eval_episodes: int = 100  # at the end of the run
    run_dir: str | None = None  # default: runs/<env>/<agent>+<aux>/s<seed>

    def __post_init__(self) -> None:
        for name in ("frame_stack", "steps", "steps_per_update", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.learning_starts < 0:
            raise ValueError(f"learning_starts={self.learning_starts}: must be at least 0")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma={self.gamma}: must be in (0, 1]")


KINDS: dict[str, Mapping[str, type]] = {"env": ENVS, "agent": AGENTS}  # one of these, told apart by their keys
PARTS = {"encoder": EncoderConfig, "replay": ReplayConfig}
GROUPS: dict[str, Mapping[str, Any]] = {
    **KINDS,
    "schema": {"config": Config, "encoder": EncoderConfig, "replay": ReplayConfig, "task": TaskConfig},
}


def register() -> None:
    """Make the schema known to Hydra, so that unknown keys and wrong types are errors."""
    store = ConfigStore.instance()
    for group, nodes in GROUPS.items():
        for name, node in nodes.items():
            store.store(group=group, name=name, node=_mutable(node))


def freeze(composed: DictConfig) -> Config:
    """The frozen dataclasses of a composed config.

    Raises:
        ValueError: a value is missing, of the wrong type or out of range.
    """
    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        assert isinstance(values, dict)
        kinds = PARTS | {name: _kind(name, values[name]) for name in KINDS}
        parts = {name: kind(**values[name]) for name, kind in kinds.items()}
        aux = {name: TaskConfig(**task) for name, task in values["aux"].items()}
        return Config(**{**values, **parts, "aux": aux})
    except (OmegaConfBaseException, TypeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _kind(part: str, values: Mapping[Any, Any]) -> type:
    """The dataclass that `values` are the keys of."""
    for kind in KINDS[part].values():
        if set(values) <= {f.name for f in fields(kind)}:
            return kind
    raise ValueError(f"no {part} has all of the keys {', '.join(map(str, values))}")


@cache
def _mutable(kind: type) -> type:
    """The same dataclass unfrozen: Hydra makes read-only nodes of a frozen one, and then no override can reach it."""
    hints = get_type_hints(kind)
    members: list[tuple[str, Any, Any]] = []
    for member in fields(kind):
        hint = hints[member.name]
        if is_dataclass(hint):
            hint = _mutable(hint)  # type: ignore[arg-type]
        elif hint == dict[str, TaskConfig]:
            hint = dict[str, _mutable(TaskConfig)]  # type: ignore[misc]
        members.append((member.name, hint, field(default=member.default, default_factory=member.default_factory)))
    return make_dataclass(kind.__name__, members)


def read_config(path: Path) -> Config:
    """The config that `train.py` left in a run folder.

    Raises:
        ValueError: missing, or not a config of this version.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected a run folder or a folder of zoo/")
    try:
        loaded = OmegaConf.load(path)
        schema = OmegaConf.structured(_mutable(Config))
        for part in KINDS:
            schema[part] = OmegaConf.structured(_mutable(_kind(part, loaded[part])))  # type: ignore[index]
        return freeze(OmegaConf.merge(schema, loaded))  # type: ignore[arg-type]
    except (OmegaConfBaseException, AttributeError, TypeError, ValueError, YAMLError) as error:
        raise ValueError(f"{path} is not a config of this version: {str(error).splitlines()[0]}") from error


def write_config(config: Config, path: Path) -> None:
    """Write every key of a run as yaml, at once."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    temporary.replace(path)


FREE = {"steps", "until_score", "eval_episodes", "run_dir", "threads"}  # may change when a run continues


def claim_run_dir(config: Config) -> Path:
    """Make the run's folder and leave its config there, or check that the run found there is this one.

    A longer run may continue a shorter one: `steps` may differ, and so may what does not change the learning.

    Raises:
        ValueError: the folder holds a run with other settings.
    """
    run_dir = Path(config.run_dir or default_run_dir(config))
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / "config.yaml"
    if path.is_file():
        old, new = flat(read_config(path)), flat(config)
        for key in old | new:
            if old.get(key) != new.get(key) and key not in FREE:
                raise ValueError(
                    f"{run_dir} holds a run with {key}={old.get(key)}, this one has {new.get(key)}: "
                    "give run_dir=... or remove that folder"
                )
    write_config(config, path)
    return run_dir


def default_run_dir(config: Config) -> str:
    """`runs/<env>/<agent>+<aux>/s<seed>`."""
    agent = _choice(config.agent, AGENTS)
    return "/".join(["runs", _env_name(config.env), "+".join([agent, *config.aux]), f"s{config.seed}"])


def _env_name(env: EnvConfig) -> str:
    match env:
        case AtariConfig():
            return env.game
        case DmcConfig():
            background = [] if env.background == "none" else [env.background]
            return "_".join([env.domain, env.task, *background])
        case _:
            return _choice(env, ENVS)


def _choice(part: object, kinds: Mapping[str, type]) -> str:
    """The name by which a group of Hydra's knows this config."""
    return next(name for name, kind in kinds.items() if isinstance(part, kind))


def flat(config: Config) -> dict[str, Any]:
    """Every value by dotted key."""

    def leaves(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        return {k: v for key, child in node.items() for k, v in leaves(child, f"{prefix}.{key}".lstrip(".")).items()}

    return leaves(asdict(config), "")
