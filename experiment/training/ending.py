"""The end of a training: its evaluation beside random play, the video, and the log of files and next commands."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gymnasium.spaces import Box, Discrete

from analysis.attribution import Head
from analysis.episode import PANEL, attribution_targets, play_moments, write_video
from analysis.evaluation import evaluate, evaluate_columns, format_goals, format_interval, summary_of, write_report
from analysis.policies import greedy, random_policy, zero_policy
from analysis.video import video_writer
from configs.schema import Config
from envs import Policy, Protocol
from experiment.folders.next_commands import follow_up, log_finished, log_outputs, log_views
from experiment.goals.env import env_of_run
from experiment.training.build import load_agent
from experiment.training.monitoring import eval_scores
from experiment.training.run import Progress, Training, export
from harness.files import sha256
from harness.logger import RunLogger
from harness.provenance import read_json
from harness.seeding import numpy_stream

log = logging.getLogger("sidequest")

RANDOM_EPISODES = 8  # of random play, one in each copy


@dataclass(frozen=True)
class Player:
    """A trained policy and what its evaluation needs."""

    policy: Policy  # without exploration
    weights: Path  # in the run folder
    action_space: Discrete | Box
    targets: Mapping[str, Head]  # heads to explain in the video
    command: str  # repeats the evaluation
    has_goals: bool = False


def finish(run: Training) -> None:
    """Write weights, report, row of the log and video, where they are missing or of an earlier step."""
    config, run_dir, space = run.config, run.run_dir, run.parts.env.action_space
    export(run)
    if not config.eval_episodes:
        return
    agent, weights = load_agent(run_dir, config.device)[1], run_dir / "agent.safetensors"
    command = follow_up(config, "python evaluate.py", f"episodes={config.eval_episodes}", f"seed={config.seed}")
    targets = attribution_targets(agent)
    player = Player(greedy(agent), weights, space, targets, command, has_goals=agent.goal_dim > 0)
    write_score(config, run.progress, run.logger, player)


def write_score(config: Config, progress: Progress, logger: RunLogger, player: Player) -> None:
    """Write report, row of the log and video of a training, where they are missing or of other weights."""
    weights = player.weights
    env = env_of_run(config, weights.parent)
    protocol = env.protocol()
    report = weights.parent / "report.json"
    earlier = read_earlier(report)
    chance = chance_play(config, player, protocol, earlier)
    columns: dict[str, dict[str, Any]] = earlier.get("columns", {})
    summary = summary_of(earlier, weights, protocol, config.eval_episodes, config.seed)
    if not summary:
        log.info("evaluating %d episodes, protocol %s", config.eval_episodes, protocol.name)
        report.unlink(missing_ok=True)  # of other weights
        settings = (config.frame_stack, config.eval_episodes, config.seed)
        result, columns = evaluate(player.policy, protocol, *settings), evaluate_columns(player.policy, env, *settings)
        write_report(result, report, weights, player.command, columns=columns, **chance)
        summary = result.summary
    log.info("score         %s, protocol %s", format_score(summary), protocol.name)
    for name, played in (columns | chance).items():
        log.info("%-13s %s", name.replace("_", " "), format_score(played))
    scores = eval_scores(summary, columns)
    if not logger.has_row(progress.steps, scores):
        logger.log_scalars(progress.steps, scores, **progress.clock(config))
        logger.flush()
    if config.env.display(PANEL) is not None:
        write_game(config, player, protocol)


def write_game(config: Config, player: Player, protocol: Protocol) -> None:
    """Write a video of one episode, if it is missing or of other weights."""
    video = player.weights.with_name("game.mp4")
    shown = f"{player.weights.name} {sha256(player.weights)}"
    if not video.is_file() or shown.encode() not in video.read_bytes():
        episode = play_moments(player.policy, protocol, config.frame_stack, config.seed, PANEL)
        writer = video_writer(video, config.env.fps, comment=shown)
        write_video(episode, player.targets, config.frame_stack, writer)


def chance_play(
    config: Config, player: Player, protocol: Protocol, earlier: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns of uniformly random actions, and with goals also of zero actions, under a protocol.

    With goals, the episodes are those of the evaluation.

    Args:
        earlier: a report of the run, whose results are reused if protocol, environment and number are the same.

    Returns:
        Conditions and statistics by policy, `random_play` and `do_nothing`.
    """
    policies = {"random_play": random_policy(player.action_space, numpy_stream(config.seed, "evaluate/random"))}
    if player.has_goals and isinstance(player.action_space, Box):
        policies["do_nothing"] = zero_policy(player.action_space)
    episodes = config.eval_episodes if player.has_goals else RANDOM_EPISODES
    # as a report is read: tuples become lists
    described = {"protocol": protocol.name, "env": protocol.env.description(), "n": episodes}
    conditions: dict[str, Any] = json.loads(json.dumps(described))
    results = {}
    for name, policy in policies.items():
        played: Any = earlier.get(name)
        if not (isinstance(played, dict) and {key: played.get(key) for key in conditions} == conditions):
            log.info("playing %d episodes for comparison: %s", episodes, name.replace("_", " "))
            summary = evaluate(policy, protocol, config.frame_stack, episodes, config.seed).summary
            kept = ("mean", "mean_interval", "success_rate", "goal_distance", "goal_distance_interval")
            played = conditions | {key: summary[key] for key in kept if key in summary}
        results[name] = dict(played)
    return results


def read_earlier(path: Path) -> dict[str, Any]:
    """The report of a run; empty if there is none or it cannot be read."""
    try:
        return read_json(path)
    except (OSError, ValueError):
        return {}


def format_score(summary: Mapping[str, Any]) -> str:
    """`mean 14.28, 95 % interval 13.20 to 15.31, 100 episodes`."""
    score = f"mean {summary['mean']:.2f}{format_interval(summary)}, {summary['n']} episodes"
    return score + format_goals(summary)


def log_end(run: Training, begun: int) -> None:
    """Log where the files of a training are, the next commands, and, if it made no update, why."""
    config, progress, run_dir = run.config, run.progress, run.run_dir
    if begun and progress.steps == begun:
        log_finished(progress.steps, config)
    if not progress.updates:
        log.warning("no update was made: %s", why_no_update(config, progress.steps))
    log_outputs({
        "video": run_dir / "game.mp4", "weights": run_dir / "agent.safetensors",
        "encoder": run_dir / "encoder.safetensors", "checkpoints": run_dir / "checkpoints",
    })  # fmt: skip
    log.info("evaluate      %s", follow_up(config, "python evaluate.py"))
    log_views(run_dir)


def why_no_update(config: Config, steps: int) -> str:
    """Why a run of so many steps made no update: the keys that decided it."""
    if config.learning_starts >= steps:
        return f"learning_starts={config.learning_starts} is not below the {steps} steps"
    after = steps - config.learning_starts
    return f"replay_ratio={config.replay_ratio:g} asks for none in the {after} steps after learning_starts"
