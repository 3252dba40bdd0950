"""Judge a trained agent: full games under a named protocol, a report, a video, and maps of what it looks at.

python evaluate.py checkpoint=zoo/pong-permutation episodes=100 protocol=nature video=pong.mp4 attribution=maps
"""

import hashlib
import logging
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agents import Agent
from analysis.attribution import Scores, heat_panels, on_device, pictures, write_maps
from analysis.play import Moment, Policy, play_games, spread, watch
from analysis.statistics import summary
from analysis.video import VideoWriter, panel, side_by_side
from aux_tasks.transform import questions
from envs import AtariConfig, DmcConfig, EnvConfig, build_env
from experiment.build import load_agent
from harness.process import tune_process
from harness.provenance import versions, write_json

log = logging.getLogger(__name__)

PANEL = 336  # pixels a side of each picture in a video
MOMENTS = 8  # of a game, for the attribution maps


def main(argv: list[str]) -> int:
    """Run the command line; returns the exit code, 2 for an error of the user's making."""
    if {"-h", "--help"} & set(argv):
        sys.stdout.write(usage())
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        judge(parse(argv), shlex.join(["python", "evaluate.py", *argv]))
    except (ValueError, OSError, MemoryError, RuntimeError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def judge(config: "EvalConfig", command: str) -> None:
    """Play, and write all that `config` asks for."""
    run, agent = load_agent(config.checkpoint)
    protocol = choose_protocol(config.protocol, run.env)
    played = protocol.apply(run.env)
    video = VideoWriter(config.video, playback_fps(played)) if config.video else None
    tune_process(1)  # a few images at a time: more threads would only wait for each other
    report = evaluate(agent, run.env, run.frame_stack, protocol, config.episodes, config.seed, config.num_envs)
    written = config.json or config.checkpoint / f"report-{protocol.name}.json"
    write_report(report, written, config.checkpoint, command)
    log.info("report: %s", written)

    def game() -> Iterator[Moment]:
        return watch(greedy(agent), played, run.frame_stack, protocol.epsilon, config.seed, PANEL)

    if video:
        film(game(), explained(agent), run.frame_stack, video)
    if config.attribution:
        observations = [moment.obs for moment in spread(game(), MOMENTS)]
        write_maps(config.attribution, observations, explained(agent), run.frame_stack)
    sys.stdout.write(f"mean {report.summary['mean']:.2f} over {config.episodes} episodes\n")


# --- the command line ---


@dataclass(frozen=True)
class EvalConfig:
    """What to judge and where to write; each field is a `key=value` of the command line."""

    checkpoint: Path = field(metadata={"help": "a folder of zoo/, or a run folder"})
    episodes: int = field(default=100, metadata={"help": "full games to play"})
    protocol: str | None = field(
        default=None, metadata={"help": "nature, rainbow, ale_v5 or machado [nature for Atari]; env: as in training"}
    )
    json: Path | None = field(default=None, metadata={"help": "the report [report-PROTOCOL.json in the checkpoint]"})
    video: Path | None = field(default=None, metadata={"help": "an .mp4 of one more game, with attribution maps"})
    attribution: Path | None = field(default=None, metadata={"help": "folder for attribution maps of some moments"})
    seed: int = field(default=0, metadata={"help": "of the games and the random actions"})
    num_envs: int = field(default=8, metadata={"help": "games played at once; another number, other games"})

    def __post_init__(self) -> None:
        for name, least in {"episodes": 1, "num_envs": 1, "seed": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least {least}")
        for name in ("json", "video", "attribution"):  # now, not when all games are played
            if path := getattr(self, name):
                folders = path.parents if name != "attribution" else [path, *path.parents]
                if not (nearest := next(folder for folder in folders if folder.exists())).is_dir():
                    raise ValueError(f"{name}={path}: {nearest} is no folder")
                if name != "attribution" and path.is_dir():
                    raise ValueError(f"{name}={path}: it is a folder")


_CONVERT: dict[Any, type] = {int: int, Path: Path, Path | None: Path, str | None: str}


def usage() -> str:
    """The text of --help."""

    def line(option: Field[Any]) -> str:
        default = "" if option.default in (MISSING, None) else f" [{option.default}]"
        return f"  {option.name + '=':13}{option.metadata['help']}{default}\n"

    return f"{__doc__}\n" + "".join(map(line, fields(EvalConfig)))


def parse(argv: list[str]) -> EvalConfig:
    """Read `key=value` words.

    Raises:
        ValueError: an unknown key, a number that is none, or no checkpoint.
    """
    options = {option.name: option for option in fields(EvalConfig)}
    values = {}
    for word in argv:
        key, equals, value = word.partition("=")
        if key not in options or not equals:
            near = get_close_matches(key, options, n=1, cutoff=0.0)[0]
            raise ValueError(f"unknown option {word!r}: did you mean '{near}=...'?")
        try:
            values[key] = _CONVERT[options[key].type](value)
        except ValueError as error:
            raise ValueError(f"{word}: expected a whole number") from error
    if "checkpoint" not in values:
        raise ValueError("checkpoint=... is missing: name a folder of zoo/ or a run folder")
    return EvalConfig(**values)


# --- protocols ---


@dataclass(frozen=True)
class Protocol:
    """How a score is measured. Every protocol plays full games for raw points, before backgrounds of the eval split."""

    name: str
    epsilon: float  # probability of a random action
    overrides: Mapping[str, Any] = field(default_factory=dict)  # of the run's AtariConfig

    def apply(self, env: EnvConfig) -> EnvConfig:
        """The environment to play, given that of the run.

        Raises:
            ValueError: the protocol does not fit what the agent was trained for.
        """
        if not isinstance(env, AtariConfig):
            if self.overrides:
                raise ValueError(f"protocol={self.name} is for Atari games: use protocol=env")
            return replace(env, background_split="eval") if isinstance(env, DmcConfig) else env
        if self.overrides.get("full_actions", env.full_actions) != env.full_actions:
            raise ValueError(f"protocol={self.name} is for agents trained with env.full_actions=true: use ale_v5")
        return replace(env, life_loss=False, **self.overrides)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # Mnih et al. 2015, Hessel et al. 2018, Gymnasium's ALE/*-v5, Machado et al. 2018
        Protocol("nature", 0.05, {"sticky": 0.0, "noop_max": 30, "max_frames": 18_000}),
        Protocol("rainbow", 0.001, {"sticky": 0.0, "noop_max": 30, "max_frames": 108_000}),
        Protocol("ale_v5", 0.001, {"sticky": 0.25, "noop_max": 0, "max_frames": 108_000}),
        Protocol("machado", 0.01, {"sticky": 0.25, "noop_max": 0, "max_frames": 18_000, "full_actions": True}),
        Protocol("env", 0.0),
    )
}


def choose_protocol(name: str | None, env: EnvConfig) -> Protocol:
    """The protocol of that name; by default `nature` for Atari games and `env` for all else.

    Raises:
        ValueError: there is none of that name.
    """
    name = name or ("nature" if isinstance(env, AtariConfig) else "env")
    if name not in PROTOCOLS:
        near = get_close_matches(name, PROTOCOLS, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown protocol {name!r}: did you mean {near!r}? (there are {', '.join(PROTOCOLS)})")
    return PROTOCOLS[name]


# --- the score ---


@dataclass(frozen=True)
class Report:
    """The result of an evaluation."""

    summary: dict[str, Any]
    returns: list[float]  # raw points, ordered by copy of the environment
    lengths: list[int]  # agent steps
    protocol: Protocol
    env: EnvConfig  # as played
    frame_stack: int
    seed: int
    seconds: float  # wall clock


def evaluate(
    agent: Agent,
    env_config: EnvConfig,
    frame_stack: int,
    protocol: Protocol,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 8,
) -> Report:
    """Play full games and summarise their raw scores; the same arguments give the same games.

    Args:
        agent: acts greedily but for the protocol's epsilon.
        env_config: the environment of the run; the protocol says what differs.
        frame_stack: frames in an observation.
        protocol: one of `PROTOCOLS`.
        episodes: games to play.
        seed: of the games and the random actions; they share nothing with a training of that seed.
        num_envs: copies, at most one a game.

    Raises:
        ValueError: the protocol does not fit the environment.
    """
    played = replace(protocol.apply(env_config), num_envs=min(num_envs, episodes))
    start = time.perf_counter()
    env = build_env(played)
    games = play_games(greedy(agent), env, frame_stack, protocol.epsilon, episodes, seed)
    env.close()
    returns, lengths = [score for score, _ in games], [length for _, length in games]
    seconds = time.perf_counter() - start
    return Report(summary(returns), returns, lengths, protocol, played, frame_stack, seed, seconds)


def greedy(agent: Agent) -> Policy:
    """The policy of an agent that has stopped exploring."""
    return partial(agent.act, step=0, explore=False)


def write_report(report: Report, path: Path, checkpoint: Path, command: str) -> None:
    """Write a report as JSON, with all that is needed to get it again."""
    weights = checkpoint / "agent.safetensors"
    content, simulator = asdict(report), ["ale-py"]
    if isinstance(report.env, DmcConfig):
        simulator = ["dm-control", "mujoco"]
        content["env_steps"] = [length * report.env.repeat for length in report.lengths]
    content |= {
        "checkpoint": str(checkpoint),
        "sha256": {weights.name: hashlib.sha256(weights.read_bytes()).hexdigest()},
        "command": command,
        "versions": versions("gymnasium", *simulator),
    }
    write_json(content, path)


# --- what it looks at ---


def explained(agent: Agent) -> dict[str, Scores]:
    """The heads to explain, by name: values of actions, and the class that each task sees in the unchanged pixels."""
    return on_device({"Q": agent.q_values} | questions(agent, agent.encoder), agent.device)


def film(game: Iterable[Moment], targets: Mapping[str, Scores], frame_stack: int, video: VideoWriter) -> None:
    """Write a game as video: the picture with its score, and beside it what each head looks at."""
    with video:
        for moment in game:
            shown = panel(pictures(moment.frame, 1)[0], PANEL, f"score {moment.score:g}")
            video.add(side_by_side([shown, *heat_panels(targets, moment.obs, frame_stack, PANEL, samples=8)]))


def playback_fps(env: EnvConfig) -> float:
    """Real time for Atari, whose console draws 60 frames a second; about that for dm_control; slow for the toys."""
    match env:
        case AtariConfig():
            return 60 / env.frame_skip
        case DmcConfig():
            return 50 / env.repeat  # a control step lasts 10 to 40 ms
        case _:
            return 6.0


class SB3Policy:
    """An agent as a model of Stable-Baselines3, for `evaluate_policy` and others that call `predict`."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def predict(self, observation: NDArray[np.uint8], *_: Any, **__: Any) -> tuple[NDArray[Any], None]:
        """The judged policy's actions for observations (N, C, H, W), and no state; other arguments change nothing."""
        return self.agent.act(observation, step=0, explore=False), None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
