"""What TensorBoard shows first of a run, and its losses in the line of progress."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.logger import RunLogger

# Logged again under a second tag that TensorBoard sorts before all others, since capitals come first.
FIRST = {"rollout/score": "Score/training games", "eval/mean_reward": "Score/evaluation"}


def open_logger(run_dir: Path, *, step: int, total: int, tasks: Iterable[str]) -> RunLogger:
    """The log of a run with `tasks`, which are overlaid in charts."""
    return RunLogger(run_dir, step=step, total=total, charts=chart_layout(list(tasks)), first=FIRST)


def chart_layout(tasks: list[str]) -> dict[str, dict[str, list[Any]]]:
    """The layout of charts that overlay the auxiliary tasks. TensorBoard itself overlays runs."""
    charts: dict[str, dict[str, list[Any]]] = {
        "Score": {"game score": ["Multiline", ["rollout/score", "eval/mean_reward"]]},
        "Representation": {tag: ["Multiline", [f"repr/{tag}"]] for tag in ("effective_rank", "feature_std")},
    }
    if tasks:
        charts["Auxiliary tasks"] = {
            tag: ["Multiline", [f"aux/{name}/{tag}" for name in tasks]] for tag in ("loss", "accuracy", "grad_cosine")
        }
    return charts


def shown_losses(metrics: Mapping[str, float]) -> dict[str, float]:
    """`train/loss` and the loss of each auxiliary task; empty if no update was made."""
    if "train/loss" not in metrics:
        return {}
    tasks = {tag.split("/")[1]: loss for tag, loss in metrics.items() if re.fullmatch("aux/[^/]*/loss", tag)}
    return {"loss": metrics["train/loss"]} | tasks
