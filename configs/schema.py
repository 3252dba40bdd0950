"""Every key of a run, with its type and default. The yaml files beside this one are presets: they only override."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from agents import AgentConfig, DQNConfig
from agents.config import Head
from agents.peers import PeerConfig
from aux_tasks import TaskConfig
from configs.collect import CollectConfig
from configs.sources import SourceConfig
from encoders import EncoderConfig
from envs import EnvConfig
from harness.checks import check_above, check_choice, check_least, check_within
from replay import ReplayConfig

OBSERVED, GOAL_SOURCES = ("latent", "features", "pixels"), ("imagined", "env")
MODES = ("linear", "finetune", "joint", "label_augmentation")  # of a probe


@dataclass(frozen=True)
class GoalConfig:
    """A goal space: goals, rewards and perhaps observations are its embeddings of pictures."""

    # folder of a pretraining whose auxiliary task defines goals; aux: that of this run, which goes on learning; pixels:
    # averaged pictures; null: goals as in `env`
    space: str | None = None
    # what the agent sees: latent, the embedding of the newest frame; features, what the space's encoder sees; or pixels
    observe: str = "latent"
    source: str = "imagined"  # goals of the training: imagined by the space, or env: pictures from the environment
    # a video, or the folder of a recording, whose first episode is used: instead of reaching goals, imitate it
    demonstration: str | None = None
    view: int = 0  # of the recording: which camera saw the demonstration

    def __post_init__(self) -> None:
        check_choice("goal.observe", self.observe, OBSERVED)
        check_choice("goal.source", self.source, GOAL_SOURCES)
        if self.space == "aux" and self.observe != "pixels":
            raise ValueError("goal.space=aux reads pixels: goal.observe=pixels")
        if self.demonstration is not None and (self.space in (None, "aux") or self.observe != "latent"):
            raise ValueError("goal.demonstration needs goal.space=<folder of a pretraining> and goal.observe=latent")


@dataclass(frozen=True)
class Config:
    """A run. Steps are agent steps, summed over the environment copies."""

    env: EnvConfig
    agent: AgentConfig | PeerConfig
    encoder: EncoderConfig
    replay: ReplayConfig
    aux: dict[str, TaskConfig] = field(default_factory=dict)
    goal: GoalConfig = field(default_factory=GoalConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    seed: int = 0  # every random stream is derived from it
    device: str = "auto"  # auto, cpu or cuda; auto takes cuda where there is a CUDA device
    threads: int = 0  # torch threads; 0: one for each core this process may use
    frame_stack: int = 4  # frames in an observation
    gamma: float = 0.99  # discount of one agent step
    clip_reward: bool = True  # the learner sees rewards clipped to [-1, 1]; scores stay raw
    steps: int = 400_000  # agent steps of the run
    until_score: float | None = None  # end at the first checkpoint where the last ten training games average this
    # pairs of a score of training games and agent steps, as a preset was measured: the log says when to expect them
    milestones: list[list[int]] = field(default_factory=list)
    learning_starts: int = 4_000  # agent steps with random actions before the first update
    replay_ratio: float = 0.25  # updates per agent step
    batch_size: int = 32  # transitions in an update
    log_every: int = 1_000  # agent steps between rows of the log
    # agent steps between probes of the game's state in the features, on frames in data/frames; 0: never
    probe_every: int = 0
    # agent steps between gradient cosines, feature rank and pictures of what the heads see; 0: never
    diagnose_every: int = 10_000
    # agent steps between checkpoints; all copies start a new episode here, so that resuming is exact
    checkpoint_every: int = 50_000
    eval_every: int = 0  # agent steps between evaluations during the training; 0: at the end alone
    eval_every_episodes: int = 10  # episodes of each of those
    eval_episodes: int = 100  # episodes of the evaluation at the end; 0: none
    # folder of the run; default: named by environment, agent, auxiliary tasks, overrides and seed
    run_dir: str | None = None
    imports: list[str] = field(default_factory=list)  # the words `import=`; no config file imports anything

    def __post_init__(self) -> None:
        _check_counts(self, "frame_stack", "steps", "batch_size", "eval_every_episodes")
        check_above(0, replay_ratio=self.replay_ratio)
        check_within("(0, 1]", gamma=self.gamma)
        within = self.replay.longest * self.num_envs  # steps of the first windows; sampling needs those after them
        if self.learning_starts + 1 / self.replay_ratio <= within:
            least = f"{within + self.num_envs}, replay.n_step + 1 steps of each of {self.num_envs} environment copies"
            raise ValueError(f"learning_starts={self.learning_starts}: must be at least {least}")
        if self.replay.longest > 1 and (exploring := [name for name, task in self.aux.items() if task.bonus_weight]):
            raise ValueError(f"aux.{exploring[0]}.bonus_weight: bonuses are of one step, which needs replay.n_step=1")
        if not all(len(pair) == 2 and pair[1] > 0 for pair in self.milestones):
            raise ValueError(f"milestones={self.milestones}: must be pairs of a score and agent steps, [[0,90_000]]")
        if isinstance(self.agent, PeerConfig):
            _check_peer(self)
        huber = isinstance(self.agent, DQNConfig) and self.agent.head in (Head.plain, Head.spatial)
        if self.replay.lap and not huber:
            raise ValueError(
                "replay.lap=true needs a Huber loss: agent=dqn agent.head=plain or spatial, or replay=prioritized"
            )

    @property
    def num_envs(self) -> int:
        """Environment copies of all actors together."""
        return self.collect.actors * self.env.num_envs


@dataclass(frozen=True)
class PretrainConfig:
    """A pretraining of an encoder by its auxiliary tasks alone. Steps are updates."""

    source: SourceConfig
    env: EnvConfig  # which source=frames plays
    encoder: EncoderConfig
    aux: dict[str, TaskConfig]
    seed: int = 0  # every random stream is derived from it
    device: str = "auto"  # auto, cpu or cuda; auto takes cuda where there is a CUDA device
    threads: int = 0  # torch threads; 0: one for each core this process may use
    frame_stack: int = 1  # frames in an observation; an agent that starts from the encoder needs as many
    grayscale: bool = True  # the encoder reads the luma of colour frames; the tasks still see the colours
    gamma: float = 0.99  # discount of tasks that look ahead
    test_share: float = 0.2  # share of the episodes or images held out for the metrics `test/...`
    steps: int = 5_000  # updates of the run
    batch_size: int = 64  # samples in an update
    learning_rate: float = 1e-3  # of Adam, for encoder and heads
    max_grad_norm: float = 10.0  # the gradient's norm is clipped to this, for the encoder and for the heads
    log_every: int = 100  # updates between rows of the log
    diagnose_every: int = 1_000  # updates between test metrics, feature rank and pictures of what the heads see
    checkpoint_every: int = 1_000  # updates between checkpoints
    run_dir: str | None = None  # folder of the run; default: named by source, auxiliary tasks, overrides and seed
    imports: list[str] = field(default_factory=list)  # the words `import=`; no config file imports anything

    def __post_init__(self) -> None:
        _check_counts(self, "frame_stack", "steps", "batch_size", "log_every", "diagnose_every", "checkpoint_every")
        check_above(0, learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        check_within("(0, 1]", gamma=self.gamma)
        check_within("(0, 1)", test_share=self.test_share)
        if not self.aux:
            raise ValueError("nothing to learn: give aux=rotation or another auxiliary task")
        _check_without_agent(self.aux)


@dataclass(frozen=True)
class ProbeConfig:
    """What an encoder knows: labels read from its features."""

    # a run folder of pretrain.py or train.py, a folder of zoo/, or the encoder.safetensors in one; with `encoder`, any
    # file that encoder.init takes
    checkpoint: str
    aux: dict[str, TaskConfig]  # of mode=joint and mode=label_augmentation
    source: SourceConfig | None = None  # default: what the encoder was pretrained on, or frames of its game
    env: EnvConfig | None = None  # which source=frames plays; default: that of the run
    encoder: EncoderConfig | None = None  # whose weights `checkpoint` is, where it has no run; needs `source`
    labels: list[str] = field(default_factory=list)  # labels to read from the features; default: all
    # linear: the encoder is fixed; finetune: it learns the labels too; joint: and auxiliary tasks; label_augmentation:
    # each label together with the transformation of an auxiliary task
    mode: str = "linear"
    seeds: int = 5  # random subsets of labelled examples
    train_labels: int = 1_000  # labelled examples in each subset
    test_labels: int = 2_000  # examples that the probe is tested on, at most
    raw: bool = False  # also report features that are not standardised
    steps: int = 1_000  # updates; not used by mode=linear
    batch_size: int = 64  # examples in an update; not used by mode=linear
    learning_rate: float = 1e-3  # not used by mode=linear
    max_grad_norm: float = 10.0  # the gradient's norm is clipped to this; not used by mode=linear
    device: str = "auto"  # auto, cpu or cuda; auto takes cuda where there is a CUDA device
    threads: int = 0  # torch threads; 0: one for each core this process may use
    report: str | None = None  # the report; default: probe-<mode>-<source>.json in your run, else in runs/evaluations

    def __post_init__(self) -> None:
        _check_counts(self, "seeds", "train_labels", "test_labels", "steps", "batch_size")
        check_above(0, learning_rate=self.learning_rate, max_grad_norm=self.max_grad_norm)
        check_choice("mode", self.mode, MODES)
        if self.encoder and not self.source:
            raise ValueError(f"encoder={self.encoder.name} knows of no labelled pictures: give source=... too")
        if self.encoder and self.encoder.init:
            raise ValueError(f"encoder.init={self.encoder.init}: a probe takes weights by checkpoint=...")
        if (self.mode in ("joint", "label_augmentation")) != bool(self.aux):
            raise ValueError("mode=joint or label_augmentation and an auxiliary task, as aux=rotation, need each other")
        _check_without_agent(self.aux)


@dataclass(frozen=True)
class EvaluateConfig:
    """An evaluation of a trained agent."""

    checkpoint: str  # a folder of zoo/, or a run folder
    episodes: int = 100  # full episodes to play
    protocol: str | None = None  # evaluation protocol; default: nature for Atari games, env (as in training) elsewhere
    json: str | None = None  # the report; default: report-<protocol>.json in a run of yours, else in runs/evaluations
    video: str | None = None  # an .mp4 of one more episode, with attribution maps
    attribution: str | None = None  # folder for attribution maps of some moments
    goal: str | None = None  # picture to reach in every episode, of an agent with a goal space
    background: str | None = None  # of dm_control and the pusher, gas or video for example; default: that of the run
    # folder of the images or videos of background=images|video; default: that of the run, if it lies under runs/
    background_folder: str | None = None
    seed: int = 0  # seed of the environment and of the random actions
    num_envs: int = 8  # episodes played at once; another number gives other episodes
    device: str = "auto"  # auto, cpu or cuda; auto takes cuda where there is a CUDA device
    threads: int = 1  # torch threads: a few images at a time gain nothing from more; 0: one for each core

    def __post_init__(self) -> None:
        _check_counts(self, "episodes", "num_envs")


@dataclass(frozen=True)
class CompareConfig:
    """A comparison of finished runs."""

    runs: list[str] = field(default_factory=list)  # folders, patterns, reports kept as .json, .csv; or as bare words
    out: str = "runs/_groups"  # folder of the report, and of the groups for TensorBoard
    baseline: str | None = None  # label of a group, or a part of it; default: the one without auxiliary tasks
    x: str = "steps"  # of the curves, steps or seconds
    metric: str = "rollout/score"  # of the curves: any tag of metrics.jsonl
    published: list[str] = field(default_factory=list)  # .csv files (step, score, perhaps low, high) to draw in grey

    def __post_init__(self) -> None:
        check_choice("x", self.x, ("steps", "seconds"))


def _check_without_agent(tasks: Mapping[str, TaskConfig]) -> None:
    """Raise ValueError if a task trains an encoder of its own, or has a bonus, where there is no agent."""
    for name, task in tasks.items():
        if task.bonus_weight:
            raise ValueError(f"aux.{name}.bonus_weight={task.bonus_weight} is for train.py, whose agent explores")
        if task.encoder != "shared":
            raise ValueError(f"aux.{name}.encoder={task.encoder} is for train.py, whose agent has an encoder beside it")


def _check_counts(config: "AnyConfig", *positive: str) -> None:
    """Raise ValueError unless every whole number is at least 0, and those named at least 1."""
    counts = {member.name: getattr(config, member.name) for member in fields(config) if member.type is int}
    check_least(1, **{name: counts[name] for name in positive})
    check_least(0, **counts)


OF_PEERS = {"env", "agent", "seed", "device", "threads", "frame_stack", "gamma", "clip_reward", "steps", "log_every"}
OF_PEERS |= {"checkpoint_every", "eval_every", "eval_every_episodes", "eval_episodes", "run_dir", "imports"}


def _check_peer(config: Config) -> None:
    """Raise ValueError unless all that an agent of Stable-Baselines3 does not read has its default."""
    default = flat(Config(config.env, DQNConfig(), EncoderConfig(), ReplayConfig()))
    for key, value in flat(config).items():
        if key.partition(".")[0] not in OF_PEERS and value != default.get(key):
            raise ValueError(f"{key}={value} does not apply to agent={config.agent.name}: leave it out")


RunConfig = Config | PretrainConfig
AnyConfig = RunConfig | ProbeConfig | EvaluateConfig | CompareConfig


def flat(config: AnyConfig) -> dict[str, Any]:
    """Every value by dotted key."""
    return flatten(asdict(config))


def flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Every value of nested dictionaries by dotted key."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {k: v for key, child in tree.items() for k, v in flatten(child, f"{prefix}.{key}".lstrip(".")).items()}
