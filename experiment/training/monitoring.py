"""What a training logs: metrics, measurements of the representation, pictures, probes and evaluations."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.evaluation import evaluate, evaluate_columns
from analysis.picture import contact_sheet
from analysis.policies import greedy
from analysis.representation import diagnose
from aux_tasks.base import Examples
from configs.schema import Config
from envs import EnvConfig, Policy
from experiment.goals.env import env_of_run
from experiment.goals.space import AUX
from experiment.training.charts import shown_losses
from experiment.training.run import SCORE_EPISODES, Progress, Training, export
from harness.logger import RunLogger
from harness.signals import GracefulExit
from replay import Batch

log = logging.getLogger(__name__)

GOALS_SHOWN = 8  # episodes


def log_metrics(run: Training) -> None:
    """Log the means of the metrics since the last call.

    Raises:
        NonFiniteError: a metric was NaN or infinite.
    """
    progress, values, metrics = run.progress, run.parts.agent.schedule.values, run.window.drain()
    metrics |= {"train/n_updates": progress.updates, "train/learning_rate": values["learning_rate"]}
    if "epsilon" in values:
        metrics["rollout/exploration_rate"] = values["epsilon"]
    log_row(run.config, progress, run.logger, metrics | run.parts.rollout.drain())
    run.solved.check(progress.steps, metrics)


def log_row(config: Config, progress: Progress, logger: RunLogger, metrics: Mapping[str, float]) -> None:
    """Write a row of the log: `metrics`, and means over the recent training episodes. Show the progress."""
    row = {**metrics, **episode_metrics(progress)}
    progress.episodes_logged = progress.episodes
    logger.log_scalars(progress.steps, row, **progress.clock(config))
    recent = {"score": float(np.mean(progress.returns[-SCORE_EPISODES:]))} if progress.returns else {}
    logger.log_health(progress.steps, recent | shown_losses(row))


def episode_metrics(progress: Progress) -> dict[str, float]:
    """Means over the recent training episodes, and the score over those that are not logged yet."""
    metrics: dict[str, float] = {}
    if progress.returns:
        means = {"ep_rew_mean": np.mean(progress.returns), "ep_len_mean": np.mean(progress.lengths)}
        if progress.successes:
            means["success_rate"] = np.mean(progress.successes)
            means["goal_distance"] = np.mean(progress.goal_distances)
        metrics |= {f"rollout/{name}": float(mean) for name, mean in means.items()}
    if fresh := min(progress.episodes - progress.episodes_logged, len(progress.returns)):
        metrics["rollout/score"] = float(np.mean(progress.returns[-fresh:]))  # a hundred episodes lag far behind
        metrics["rollout/episodes"] = fresh
    return metrics


def warn_of_cuts(run: Training) -> None:
    """Warn once if checkpoints come so often that episodes are cut before they end."""
    config, progress, copies = run.config, run.progress, run.parts.rollout.num_envs
    ended, progress.cuts_seen = progress.episodes - progress.cuts_seen, progress.episodes
    whole = progress.steps - progress.saved > config.checkpoint_every - copies  # since the last checkpoint
    if whole and progress.due(config.checkpoint_every) and ended < copies and not progress.cuts_told:
        progress.cuts_told = True
        log.warning(
            "checkpoint_every=%d cuts each of %d copies every %d steps, and only %d episodes ended: scores are missing "
            "or biased towards short episodes. Set it to more than %d times the length of an episode",
            config.checkpoint_every,
            copies,
            config.checkpoint_every // copies,
            ended,
            copies,
        )


def log_diagnosis(run: Training, batch: Batch) -> None:
    """Log costly measurements and pictures. The random streams of the training are not used."""
    progress, parts, logger = run.progress, run.parts, run.logger
    metrics = diagnose(parts.agent, batch)
    scalars = {name: float(value) for name, value in metrics.items() if not value.ndim}
    if run.denoising:
        encoders = {"repr": parts.agent.encoder}
        encoders |= {f"aux/{task}": parts.suite.encoder_of(task, parts.agent.encoder) for task in parts.suite.encoders}
        for tag, encoder in encoders.items():
            scores = run.denoising(encoder)
            scalars |= {f"{tag}/denoising/{name}": score for name, score in scores.items()}
    for name, value in metrics.items():
        if value.ndim:
            logger.log_histogram(progress.steps, name, value)
    log_examples(parts.suite.examples(batch, parts.agent.encoder), run.config.frame_stack, progress.steps, logger)
    if goals := parts.rollout.env.goal_examples():
        shown = {name: pixels[:GOALS_SHOWN] for name, pixels in goals.items()}
        sheet = contact_sheet("What is to be reached, and what was?", shown)
        logger.log_picture(progress.steps, "goals", sheet, "goals")
    logger.log_scalars(progress.steps, scalars, **progress.clock(run.config))  # last: its clock covers all of this


def log_examples(examples: Mapping[str, Examples], frame_stack: int, step: int, logger: RunLogger) -> None:
    """Log a picture for each task of what its head sees and predicts."""
    for name, seen in examples.items():
        frames = seen.frames or frame_stack
        pictures = {caption: pixels.cpu().numpy() for caption, pixels in seen.pictures.items()}
        sheet = contact_sheet(seen.question, pictures, seen.predicted, seen.correct, frames)
        logger.log_picture(step, name, sheet, f"aux/{name}/inputs")


def log_probe(run: Training) -> None:
    """Log how well the features predict the state of the environment, if the run has a probe."""
    if run.probe:
        scores = run.probe(run.parts.agent.encoder)
        run.logger.log_scalars(run.progress.steps, scores, **run.progress.clock(run.config))


def log_evaluation(run: Training, stop: GracefulExit) -> None:
    """Evaluate the current policy and log its scores. Environments and seeds are not those of the training."""
    config, progress, agent = run.config, run.progress, run.parts.agent
    if config.goal.space == AUX:
        export(run)  # the evaluation reads its goal space from there
    log_scores(config, progress, run.logger, greedy(agent), env_of_run(config, run.run_dir), stop)


def log_scores(
    config: Config, progress: Progress, logger: RunLogger, policy: Policy, env: EnvConfig, stop: GracefulExit
) -> None:
    """Play the episodes of an evaluation during training, and log their scores; due again where a signal ends it."""
    settings = (config.frame_stack, config.eval_every_episodes, config.seed)
    try:
        summary = evaluate(policy, env.protocol(), *settings, stop=lambda: bool(stop.requested)).summary
        columns = evaluate_columns(policy, env, *settings, stop=lambda: bool(stop.requested))
    except KeyboardInterrupt:
        if not stop.requested:
            raise
    progress.evaluation_due = stop.requested is not None
    if not progress.evaluation_due:
        logger.log_scalars(progress.steps, eval_scores(summary, columns), **progress.clock(config))


def eval_scores(summary: Mapping[str, Any], columns: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """The summary of an evaluation and the means of its further columns, by Stable-Baselines3's tags."""
    goals = {f"eval/{name}": summary[name] for name in ("success_rate", "goal_distance") if name in summary}
    further = {f"eval/{name}/mean_reward": column["mean"] for name, column in columns.items()}
    rewards = {name: summary[name] for name in ("mean", "median", "std") if summary[name] is not None}
    return {f"eval/{name}_reward": reward for name, reward in rewards.items()} | goals | further
