"""What a training writes to its log: metrics, measurements of the representation, pictures, evaluations."""

import numpy as np

from agents import Agent
from analysis.evaluation import evaluate, greedy
from analysis.picture import contact_sheet
from analysis.representation import diagnose
from configs.schema import Config
from experiment.build import Parts
from experiment.training import LAST, Progress
from harness.logger import MetricWindow, RunLogger, shown_losses
from replay import Batch


def log_metrics(progress: Progress, agent: Agent, window: MetricWindow, logger: RunLogger) -> None:
    """Average what happened since the last call into the log.

    Raises:
        NonFiniteError: a metric was NaN or infinite.
    """
    metrics = window.drain()
    values = agent.schedule.values
    metrics |= {"train/n_updates": progress.updates, "train/learning_rate": values["learning_rate"]}
    if "epsilon" in values:
        metrics["rollout/exploration_rate"] = values["epsilon"]
    if progress.returns:
        means = {"ep_rew_mean": np.mean(progress.returns), "ep_len_mean": np.mean(progress.lengths)}
        metrics |= {f"rollout/{name}": float(mean) for name, mean in means.items()}
    if fresh := min(progress.episodes - progress.episodes_logged, len(progress.returns)):
        metrics["rollout/score"] = float(np.mean(progress.returns[-fresh:]))  # a hundred episodes lag far behind
        progress.episodes_logged = progress.episodes
    logger.scalars(progress.steps, metrics)
    recent = {"score": float(np.mean(progress.returns[-LAST:]))} if progress.returns else {}
    logger.health(progress.steps, recent | (shown_losses(metrics) if "train/loss" in metrics else {}))


def log_diagnosis(batch: Batch, parts: Parts, frame_stack: int, step: int, logger: RunLogger) -> None:
    """Costly measurements and pictures, outside the random streams of the training."""
    metrics = diagnose(parts.agent, batch)
    logger.scalars(step, {name: float(value) for name, value in metrics.items() if not value.ndim})
    for name, value in metrics.items():
        if value.ndim:
            logger.histogram(step, name, value)
    for name, seen in parts.suite.examples(batch, parts.agent.encoder).items():
        frames = seen.frames or frame_stack
        picture = contact_sheet(seen.inputs.cpu().numpy(), seen.predicted, seen.correct, frames)
        logger.image(step, name, picture)


def log_evaluation(config: Config, agent: Agent, step: int, logger: RunLogger) -> None:
    """Scores of the policy as it is now, in environments and with seeds of their own: the training is not disturbed."""
    report = evaluate(greedy(agent), config.env.protocol(), config.frame_stack, config.eval_every_episodes, config.seed)
    logger.scalars(step, {f"eval/{name}_reward": report.summary[name] for name in ("mean", "median", "std")})
