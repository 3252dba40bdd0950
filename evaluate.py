"""Evaluate a trained agent: full episodes under a named protocol, a report, a video, and attribution maps.

python evaluate.py zoo/pong-permutation
python evaluate.py zoo/pong-permutation protocol=ale_v5 json=out.json video=pong.mp4 attribution=maps
"""

if __name__ == "__main__":
    from experiment.launching.start import start

    start("evaluate", __doc__)  # before torch is imported

import logging
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from analysis.attribution import write_maps
from analysis.episode import PANEL, attribution_targets, evenly_spaced, play_moments, write_video
from analysis.evaluation import Report, evaluate, evaluate_columns, format_goals, format_interval, write_report
from analysis.policies import greedy
from analysis.video import video_writer
from configs.schema import Config, EvaluateConfig
from envs import EnvConfig
from envs.scenes import SceneConfig
from experiment.command_line.composition import Composed, freeze
from experiment.command_line.overrides import repeating
from experiment.folders.foreign import check_paths, is_own, results_folder
from experiment.folders.zoo import locate
from experiment.goals.env import env_of_run
from experiment.goals.space import GOAL_SPACE_FILE
from experiment.launching.launch import launch
from experiment.training.build import load_agent
from experiment.training.overlays import check_overlays
from harness.files import check_writable
from harness.process import tune_process
from harness.signals import GracefulExit

log = logging.getLogger("sidequest")

MOMENTS = 8  # of an episode, for the attribution maps


def run(config: EvaluateConfig, argv: list[str], suffix: str = "") -> int:
    """Evaluate, and write everything that `config` asks for; returns the exit code of the process.

    Args:
        argv: the words that repeat it.
        suffix: of the report's name where `config` gives none.
    """
    tune_process(config.threads)
    checkpoint = locate(config.checkpoint)
    trained, agent = load_agent(checkpoint, config.device)
    env = build_env(config, checkpoint, trained)
    protocol, frame_stack = env.protocol(config.protocol), trained.frame_stack
    if (config.video or config.attribution) and protocol.env.display(PANEL) is None:
        raise ValueError(f"env={trained.env.name} has no pictures: leave out video and attribution")
    video = video_writer(Path(config.video), protocol.env.fps) if config.video else None
    written = Path(config.json or results_folder(checkpoint) / f"report-{protocol.name}{suffix}.json")
    for place in (written, config.video, config.attribution and f"{config.attribution}/moment_0.png"):
        if place:
            check_writable(Path(place))  # now, not when all episodes are played
    with GracefulExit() as stop:
        settings = (frame_stack, config.episodes, config.seed, config.num_envs, lambda: bool(stop.requested))
        report = evaluate(greedy(agent), protocol, *settings)
        columns = {} if config.protocol else evaluate_columns(greedy(agent), env, *settings)
    command = f"python evaluate.py {shlex.join(argv)}"
    try:
        write_report(report, written, checkpoint / "agent.safetensors", command, columns=columns)
        log.info("%-13s %s", "report", written)
    finally:  # a full disk does not take the score
        show_scores(config, report, columns)
    if report.partial:
        log.warning("%s: the report contains only finished episodes, which favours short ones", stop.requested)
    if stop.requested:
        return stop.exit_code
    moments = partial(play_moments, greedy(agent), protocol, frame_stack, config.seed, PANEL)
    if video:
        write_video(moments(), attribution_targets(agent), frame_stack, video)
        log.info("video: %s", config.video)
    if config.attribution:
        observations = [moment.obs for moment in evenly_spaced(moments(), MOMENTS)]
        write_maps(Path(config.attribution), observations, attribution_targets(agent), frame_stack)
        log.info("attribution: %s", config.attribution)
    return 0


def show_scores(config: EvaluateConfig, report: Report, columns: Mapping[str, Any]) -> None:
    """Print the mean return with its interval, and log those of further columns."""
    for name, column in columns.items():
        log.info("%-13s mean %.2f%s", name, column["mean"], format_interval(column))
    of = f" of {config.episodes}" if report.partial else ""
    score = f"mean {report.summary['mean']:.2f} over {len(report.returns)}{of} episodes"
    sys.stdout.write(f"{score}{format_interval(report.summary)}{format_goals(report.summary)}\n")


def build_env(config: EvaluateConfig, checkpoint: Path, trained: Config) -> EnvConfig:
    """The environment of a run as its agent sees it, with the goal and the backgrounds that the command line names.

    Raises:
        ValueError: see `with_backgrounds` and `env_of_run`.
    """
    allowed = {"space"} if (checkpoint / GOAL_SPACE_FILE).is_file() else set[str]()
    check_paths(checkpoint, trained.goal, f"put its {GOAL_SPACE_FILE} into {checkpoint}", allowed)
    trained = replace(trained, env=with_backgrounds(trained.env, config), device=config.device)
    if is_own(checkpoint):
        check_overlays(trained)
    return env_of_run(trained, checkpoint, config.goal)


def with_backgrounds(env: EnvConfig, config: EvaluateConfig) -> EnvConfig:
    """The environment of a run, with the backgrounds that the command line names.

    Raises:
        ValueError: the environment has no backgrounds, or a config that may be somebody else's names their folder.
    """
    given = {key: value for key in ("background", "background_folder") if (value := getattr(config, key))}
    if given and not isinstance(env, SceneConfig):
        key, value = next(iter(given.items()))
        raise ValueError(f"{key}={value}: env={env.name} has no backgrounds")
    env = replace(env, **given)
    if "background_folder" not in given:
        check_paths(Path(config.checkpoint), env, "give background_folder=...")
    return env


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""

    def one(composed: Composed) -> int:
        composed.check_outputs("json", "video", "attribution")
        return run(freeze(composed.config, EvaluateConfig), repeating(words, composed), composed.suffix)

    return launch(one, "evaluate", words, __doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
