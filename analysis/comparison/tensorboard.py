"""A comparison for TensorBoard: a run with mean and interval for each group, and a table of hyperparameters."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter, summary

from analysis.comparison.measure import Cell, Comparison
from harness.derive import shorten

SUFFIX = ".compare"  # of the event files, by which a later comparison finds and replaces them
SCORES = ("final", "best", "last")


def write_groups(comparison: Comparison, folder: Path) -> None:
    """Write `folder/<task>/<label>` for each group, and `folder/<task>/<label>/s<seed>` for the scores of each run.

    The event files of an earlier comparison there are removed.
    """
    for old in folder.rglob(f"events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    for (task, label), cell in comparison.cells.items():
        group_dir = folder / _name(task) / _name(label)
        _write_curve(cell, comparison.metric, group_dir)
        for outcome in cell.outcomes:
            scores = {name: value for name in SCORES if (value := getattr(outcome, name)) is not None}
            settings = {"task": task, **cell.group.words, "seed": outcome.run.seed}
            with SummaryWriter(str(group_dir / f"s{outcome.run.seed}"), filename_suffix=SUFFIX) as writer:
                _write_hparams(writer, settings, scores)
                for name, value in scores.items():
                    writer.add_scalar(name, value, outcome.run.steps)


def _write_curve(cell: Cell, metric: str, group_dir: Path) -> None:
    with SummaryWriter(str(group_dir), filename_suffix=SUFFIX) as writer:
        tags = [f"group/{metric.replace('/', '_')}{end}" for end in ("", "_low", "_high")]
        if cell.curve:
            for x, *values in zip(cell.curve.x, cell.curve.mean, cell.curve.low, cell.curve.high, strict=True):
                for tag, value in zip(tags, values, strict=True):
                    writer.add_scalar(tag, value, int(x))
        writer.add_custom_scalars({"Groups": {f"{metric}, mean and band over the seeds": ["Margin", tags]}})


def _write_hparams(writer: SummaryWriter, hparams: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
    """Write a row of the table of hyperparameters, which shows the scalars that `metrics` names.

    `SummaryWriter.add_hparams` would write these scalars again, in another folder.
    """
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in hparams.items()}
    for part in summary.hparams(plain, dict(metrics)):  # type: ignore[no-untyped-call]
        writer.file_writer.add_summary(part)  # type: ignore[attr-defined]


def _name(text: str) -> str:
    """The text as a folder name."""
    return shorten(re.sub(r"[^\w.+=-]+", "_", text).strip("._") or "_")
