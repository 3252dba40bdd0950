"""Evaluation of a policy: full episodes under a protocol, and their report."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gymnasium.spaces import Discrete

from analysis.policies import mix_random
from analysis.statistics import summary
from envs import EnvConfig, Episode, Policy, Protocol, Rollout, VectorEnv
from harness.files import sha256
from harness.progress import Meter
from harness.provenance import versions, write_json
from harness.seeding import derive, numpy_stream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """The result of an evaluation."""

    summary: dict[str, Any]
    returns: list[float]  # raw, ordered by copy of the environment
    lengths: list[int]  # agent steps
    env_steps: list[int]
    protocol: Protocol  # with the environment as evaluated
    frame_stack: int
    seed: int
    seconds: float  # wall clock
    goal_distances: list[float] | None = None  # to the goals at the ends of the episodes, where there are goals
    partial: bool = False  # stopped before all episodes had ended: the long ones are missing


def evaluate(
    policy: Policy,
    protocol: Protocol,
    frame_stack: int,
    episodes: int = 100,
    seed: int = 0,
    num_envs: int = 8,
    stop: Callable[[], bool] = lambda: False,
) -> Report:
    """Play full episodes and summarise their returns; the same arguments give the same episodes.

    Args:
        policy: maps observations to actions; the protocol adds its random actions.
        protocol: from `EnvConfig.protocol` of the run's environment.
        frame_stack: frames in an observation.
        episodes: number of episodes.
        seed: of the environment and the random actions. A training with the same seed has other streams.
        num_envs: environment copies, at most one for each episode. Another number gives other episodes.
        stop: called after each step. True ends the evaluation, with a report of the episodes so far.

    Raises:
        KeyboardInterrupt: stopped before an episode had ended.
    """
    start = time.perf_counter()
    protocol = replace(protocol, env=replace(protocol.env, num_envs=min(num_envs, episodes)))
    with closing(protocol.env.build()) as env:
        played = play_episodes(*start_rollout(policy, env, protocol, frame_stack, seed), episodes, stop)
    if not played:
        raise KeyboardInterrupt
    returns = [episode.score for episode in played]
    distances = [episode.goal_distance for episode in played if episode.goal_distance is not None]
    return Report(
        summary=summary(returns) | goal_summary(played),
        returns=returns,
        lengths=[episode.length for episode in played],
        env_steps=[episode.env_steps for episode in played],
        protocol=protocol,
        frame_stack=frame_stack,
        seed=seed,
        seconds=time.perf_counter() - start,
        goal_distances=distances or None,
        partial=len(played) < episodes,
    )


def evaluate_columns(
    policy: Policy,
    env: EnvConfig,
    frame_stack: int,
    episodes: int,
    seed: int,
    num_envs: int = 8,
    stop: Callable[[], bool] = lambda: False,
) -> dict[str, dict[str, Any]]:
    """The summaries of `EnvConfig.columns` by name, with the arguments of `evaluate`; after `stop`, complete ones."""
    found: dict[str, dict[str, Any]] = {}
    for name in env.columns:
        try:
            played = evaluate(policy, env.protocol(name), frame_stack, episodes, seed, num_envs, stop)
        except KeyboardInterrupt:
            if not stop():
                raise
            break
        if played.partial:
            break
        found[name] = played.summary
    return found


def goal_summary(played: Sequence[Episode]) -> dict[str, Any]:
    """Success rate and mean final distance to the goal, with intervals; empty without goals."""
    reached = [float(episode.success) for episode in played if episode.success is not None]
    if not reached:
        return {}
    distances = [episode.goal_distance for episode in played if episode.goal_distance is not None]
    found = {"success_rate": summary(reached), "goal_distance": summary(distances)}
    return {f"{name}{end}": each[f"mean{end}"] for name, each in found.items() for end in ("", "_interval")}


def format_interval(summary: Mapping[str, Any]) -> str:
    """`, 95 % interval 13.20 to 15.31`; fewer than five episodes have none."""
    if summary["n"] < 5:
        return ""
    low, high = summary["mean_interval"]
    return f", 95 % interval {low:.2f} to {high:.2f}"


def format_goals(summary: Mapping[str, Any]) -> str:
    """`, goal reached in 93 %, final distance 0.02`; empty without goals."""
    if "success_rate" not in summary:
        return ""
    return f", goal reached in {100 * summary['success_rate']:.0f} %, final distance {summary['goal_distance']:.3g}"


def start_rollout(
    policy: Policy, env: VectorEnv, protocol: Protocol, frame_stack: int, seed: int
) -> tuple[Rollout, Policy]:
    """The rollout of an evaluation at its first step, and the policy with the protocol's random actions."""
    rollout = Rollout(env, frame_stack, protocol.env.padding)
    rollout.reset(env_seed(seed))
    if isinstance(env.action_space, Discrete):
        policy = mix_random(policy, env.action_space, protocol.epsilon, numpy_stream(seed, "evaluate/explore"))
    return rollout, policy


def env_seed(seed: int) -> int:
    """The environment's seed in an evaluation, which no training uses."""
    return derive(seed, "evaluate/env")


def play_episodes(
    rollout: Rollout, policy: Policy, episodes: int, stop: Callable[[], bool] = lambda: False
) -> list[Episode]:
    """Play `episodes` full episodes, or fewer if `stop` ends it; they are ordered by copy.

    Each copy plays a fixed share: of the episodes that end first, too many would be short ones.
    """
    copies = rollout.env.num_envs
    quota = [episodes // copies + (i < episodes % copies) for i in range(copies)]
    played: list[list[Episode]] = [[] for _ in range(copies)]
    done = 0
    with Meter("episode", episodes) as meter:
        while done < episodes and not stop():
            rollout.step(policy)
            for episode in rollout.episodes:
                if len(played[episode.copy]) < quota[episode.copy]:
                    played[episode.copy].append(episode)
                    done += 1
            meter.tick(done)
        meter.show(done)
    return [episode for of_copy in played for episode in of_copy]


def write_report(report: Report, path: Path, weights: Path, command: str, **more: Any) -> None:
    """Write a report as JSON, with everything needed to repeat it, and the entries of `more` that are not empty."""
    content, env = asdict(report), report.protocol.env
    del content["protocol"]["env"]
    content["env"] = env.description()
    if env.repeat == 1:
        del content["env_steps"]  # the lengths
    if report.goal_distances is None:
        del content["goal_distances"]
    content |= {
        "checkpoint": str(weights.parent),
        "sha256": {weights.name: sha256(weights)},
        "command": command,
        "versions": versions("gymnasium", *env.simulator),
    }
    write_json(content | {name: entry for name, entry in more.items() if entry}, path)


def summary_of(
    report: Mapping[str, Any], weights: Path, protocol: Protocol, episodes: int, seed: int
) -> dict[str, Any] | None:
    """The summary in a report; None if the report is empty, damaged, or of other weights or another evaluation."""
    try:
        same = (
            report["sha256"] == {weights.name: sha256(weights)}
            and report["protocol"]["name"] == protocol.name
            and (len(report["returns"]), report["seed"]) == (episodes, seed)
        )
        return dict(report["summary"]) if same else None
    except (TypeError, KeyError, ValueError):
        return None
