"""Every key of a run, with its type and default. The yaml files beside this one only override."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from agents import AGENTS
from aux_tasks import TaskConfig
from aux_tasks.base import check_choice
from configs.sources import SOURCES, FramesConfig, choice
from encoders import EncoderConfig
from envs import ENVS
from harness.process import exclusive, replacing
from replay import ReplayConfig

MODES = ("linear", "finetune", "joint")  # of a probe


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
    steps_per_update: float = 4  # below 1: several updates a step
    batch_size: int = 32
    log_every: int = 1_000
    probe_every: int = 0  # what of the game's state the features tell, from a recording in data/frames; 0: never
    diagnose_every: int = 10_000  # gradient cosines, feature rank, pictures of what the heads see; 0: never
    checkpoint_every: int = 50_000  # all copies start anew here, so that resuming is exact
    eval_episodes: int = 100  # at the end of the run
    run_dir: str | None = None  # default: runs/<env>/<agent>+<aux>/s<seed>

    def __post_init__(self) -> None:
        _check_counts(self, "frame_stack", "steps", "batch_size")
        _check_positive(self, steps_per_update=inf, gamma=1)
        within = self.replay.n_step * self.env.num_envs  # steps of the first windows; sampling needs those after them
        if self.learning_starts + self.steps_per_update <= within:
            least = f"{within + self.env.num_envs}, replay.n_step + 1 steps of each of env.num_envs"
            raise ValueError(f"learning_starts={self.learning_starts}: must be at least {least}")


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining of an encoder by its side quests alone. Steps are updates."""

    source: Any  # one of SOURCES
    env: Any  # one of ENVS, which source=frames plays
    encoder: EncoderConfig
    aux: dict[str, TaskConfig]
    seed: int = 0
    device: str = "auto"  # auto, cpu or cuda
    threads: int = 0  # of torch; 0: the cores this process may use
    frame_stack: int = 1  # frames in an observation; the agent that starts from the encoder has to have as many
    grayscale: bool = True  # the encoder reads the luma of colour frames; the colours stay there for the tasks
    gamma: float = 0.99  # of objectives that look ahead
    test_share: float = 0.2  # of the episodes, or images, for the metrics `test/...`
    steps: int = 5_000
    batch_size: int = 64
    learning_rate: float = 1e-3
    max_grad_norm: float = 10.0  # of the encoder, and of the heads
    log_every: int = 100
    diagnose_every: int = 1_000  # the test metrics, feature rank, pictures of what the heads see
    checkpoint_every: int = 1_000
    run_dir: str | None = None  # default: runs/pretrain/<source>/<aux>/s<seed>

    def __post_init__(self) -> None:
        _check_counts(self, "frame_stack", "steps", "batch_size", "log_every", "diagnose_every", "checkpoint_every")
        _check_positive(self, gamma=1, learning_rate=inf, max_grad_norm=inf)
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share={self.test_share}: must be in (0, 1)")
        if not self.aux:
            raise ValueError("nothing to learn: give aux=rotation or another objective")


@dataclass(frozen=True)
class ProbeConfig:
    """What an encoder knows: labels read from its features."""

    checkpoint: str  # a run folder of pretrain.py or train.py, a folder of zoo/, or the encoder.safetensors in one
    aux: dict[str, TaskConfig]  # of mode=joint
    source: Any = None  # one of SOURCES; default: what the encoder was pretrained on, or frames of its game
    env: Any = None  # one of ENVS, which source=frames plays; default: that of the run
    labels: list[str] = field(default_factory=list)  # default: all
    mode: str = "linear"  # features as they are; finetune: the encoder learns the labels too; joint: and side quests
    seeds: int = 5  # random subsets of labelled examples
    train_labels: int = 1_000  # labelled examples in each
    test_labels: int = 2_000
    raw: bool = False  # report features that are not standardised as well
    steps: int = 1_000  # updates, of finetune and joint
    batch_size: int = 64
    learning_rate: float = 1e-3
    max_grad_norm: float = 10.0
    device: str = "auto"  # auto, cpu or cuda
    threads: int = 0  # of torch; 0: the cores this process may use
    report: str | None = None  # default: probe-<mode>-<source>.json in the run folder

    def __post_init__(self) -> None:
        _check_counts(self, "seeds", "train_labels", "test_labels", "steps", "batch_size")
        _check_positive(self, learning_rate=inf, max_grad_norm=inf)
        check_choice("mode", self.mode, MODES)
        if (self.mode == "joint") != bool(self.aux):
            raise ValueError("mode=joint and aux=rotation, or another objective, need each other")


@dataclass(frozen=True)
class EvaluateConfig:
    """An evaluation of a trained agent."""

    checkpoint: str  # a folder of zoo/, or a run folder
    episodes: int = 100
    protocol: str | None = None  # default: nature for Atari games, env (as in training) for all else
    json: str | None = None  # the report; default: report-<protocol>.json in the checkpoint
    video: str | None = None  # an .mp4 of one more episode, with attribution maps
    attribution: str | None = None  # folder for attribution maps of some moments
    seed: int = 0  # of the environment and the random actions
    num_envs: int = 8  # episodes played at once; another number gives other episodes
    device: str = "auto"  # auto, cpu or cuda
    threads: int = 1  # of torch: a few images at a time gain nothing from more; 0: the cores this process may use

    def __post_init__(self) -> None:
        _check_counts(self, "episodes", "num_envs")
        for name in ("json", "video", "attribution"):  # now, not when all episodes are played
            if path := getattr(self, name):
                folders = [Path(path), *Path(path).parents][name != "attribution" :]
                if not (nearest := next(folder for folder in folders if folder.exists())).is_dir():
                    raise ValueError(f"{name}={path}: {nearest} is no folder")
                if name != "attribution" and Path(path).is_dir():
                    raise ValueError(f"{name}={path}: it is a folder")


def _check_counts(config: "AnyConfig", *positive: str) -> None:
    """Raise ValueError unless every whole number is at least 0, and those named at least 1."""
    for member in fields(config):
        value, least = getattr(config, member.name), int(member.name in positive)
        if member.type is int and value < least:
            raise ValueError(f"{member.name}={value}: must be at least {least}")


def _check_positive(config: "AnyConfig", **most: float) -> None:
    """Raise ValueError unless these values are above 0 and at most what is given."""
    for name, limit in most.items():
        if not 0 < (value := getattr(config, name)) <= limit:
            raise ValueError(f"{name}={value}: must be above 0" + (f" and at most {limit}" if limit < inf else ""))


KINDS: dict[str, Mapping[str, type]] = {"env": ENVS, "agent": AGENTS, "source": SOURCES}  # told apart by their keys
GROUPS: dict[str, Mapping[str, Any]] = {
    **KINDS,
    "schema": {
        "config": Config,
        "pretrain": PretrainConfig,
        "probe": ProbeConfig,
        "evaluate": EvaluateConfig,
        "encoder": EncoderConfig,
        "replay": ReplayConfig,
        "task": TaskConfig,
    },
}
RunConfig = Config | PretrainConfig
AnyConfig = RunConfig | ProbeConfig | EvaluateConfig
C = TypeVar("C", bound=AnyConfig)


def register() -> None:
    """Make the schema known to Hydra, so that unknown keys and wrong types are errors."""
    store = ConfigStore.instance()
    for group, nodes in GROUPS.items():
        for name, node in nodes.items():
            store.store(group=group, name=name, node=_mutable(node))


def freeze(composed: DictConfig, kind: type[C]) -> C:
    """The frozen dataclasses of a composed config.

    Raises:
        ValueError: a value is missing, of the wrong type or out of range.
    """
    hints = get_type_hints(kind)

    def frozen(name: str, value: Any) -> Any:
        if name == "aux":
            return {task: _task(task, options) for task, options in value.items()}
        if name in KINDS and value is not None:
            return _kind(name, value)(**value)
        hint = hints.get(name)  # unknown names are refused below
        return hint(**value) if isinstance(hint, type) and is_dataclass(hint) else value

    try:
        values = OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
        assert isinstance(values, dict)
        return kind(**{str(name): frozen(str(name), value) for name, value in values.items()})
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key}=... is missing") from error
    except (OmegaConfBaseException, TypeError) as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _task(name: str, options: Mapping[Any, Any]) -> TaskConfig:
    try:
        return TaskConfig(**options)
    except ValueError as error:
        raise ValueError(f"aux.{name}.{error}") from error


def _kind(part: str, values: Mapping[Any, Any]) -> type:
    """The dataclass that `values` are the keys of."""
    if part == "env" and "name" in values:
        if values["name"] not in ENVS:
            raise ValueError(f"env.name={values['name']}: there are {', '.join(ENVS)}")
        return ENVS[values["name"]]
    fitting = [kind for kind in KINDS[part].values() if set(values) <= {f.name for f in fields(kind)}]
    if not fitting:
        raise ValueError(f"no {part} has all of the keys {', '.join(map(str, values))}")
    return min(fitting, key=lambda kind: len(fields(kind)))  # another may have more keys


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


def read_config(path: Path, kind: type[C]) -> C:
    """The config that a run left in its folder.

    Raises:
        ValueError: missing, or not a config of this version.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected a run folder or a folder of zoo/")
    try:
        loaded = OmegaConf.load(path)
        schema = OmegaConf.structured(_mutable(kind))  # type: ignore[arg-type]
        for part in KINDS.keys() & schema.keys():
            schema[part] = OmegaConf.structured(_mutable(_kind(part, loaded[part])))
        return freeze(OmegaConf.merge(schema, loaded), kind)  # type: ignore[arg-type]
    except (OmegaConfBaseException, AttributeError, RecursionError, TypeError, ValueError, YAMLError) as error:
        raise ValueError(f"{path} is not a config of this version: {str(error).splitlines()[0]}") from error


def write_config(config: RunConfig, path: Path) -> None:
    """Write every key of a run as yaml, at once."""
    with replacing(path) as temporary:
        temporary.write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))


FREE = {"steps", "until_score", "eval_episodes", "run_dir", "threads"}  # may change when a run continues


@contextmanager
def claim_run_dir(config: RunConfig) -> Iterator[Path]:
    """Make the run's folder and leave its config there, or check that the run found there is this one.

    Until the block ends no other process gets in.

    A longer run may continue a shorter one: `steps` may differ, and so may what does not change the learning.

    Raises:
        ValueError: another process is in the folder, or it holds a run with other settings.
    """
    run_dir = run_folder(config)
    run_dir.mkdir(parents=True, exist_ok=True)
    with exclusive(run_dir):
        _leave_config(config, run_dir)
        yield run_dir


def _leave_config(config: RunConfig, run_dir: Path) -> None:
    path = run_dir / "config.yaml"
    if path.is_file():
        old, new = flat(read_config(path, type(config))), flat(config)
        for key in old | new:
            if old.get(key) != new.get(key) and key not in FREE:
                raise ValueError(
                    f"{run_dir} holds a run with {key}={old.get(key)}, this one has {new.get(key)}: "
                    "give run_dir=... or remove that folder"
                )
    write_config(config, path)


def run_folder(config: RunConfig) -> Path:
    """Where the run is, or will be."""
    return Path(config.run_dir or default_run_dir(config))


def default_run_dir(config: RunConfig) -> str:
    """`runs/<env>/<agent>+<aux>/s<seed>` or `runs/pretrain/<source>/<aux>/s<seed>`."""
    if isinstance(config, Config):
        parts = [config.env.label, "+".join([choice(config.agent, AGENTS), *config.aux])]
    else:
        source = choice(config.source, SOURCES)
        if isinstance(config.source, FramesConfig):
            source += "-" + config.env.label
        parts = ["pretrain", source, "+".join(config.aux)]
    return "/".join(["runs", *parts, f"s{config.seed}"])


def flat(config: AnyConfig) -> dict[str, Any]:
    """Every value by dotted key."""

    def leaves(node: Any, prefix: str) -> dict[str, Any]:
        if not isinstance(node, dict):
            return {prefix: node}
        return {k: v for key, child in node.items() for k, v in leaves(child, f"{prefix}.{key}".lstrip(".")).items()}

    return leaves(asdict(config), "")
