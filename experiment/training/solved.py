"""Warnings of auxiliary tasks that are solved early in a run and then teach the encoder little."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping

from aux_tasks import TASKS
from aux_tasks.config import options_of

log = logging.getLogger(__name__)

SOLVED = 0.99  # skill from which a task counts as solved
WINDOWS = 3  # consecutive rows of the log in which it has to be solved
EARLY = 0.5  # share of the run in which a warning is given


def skill(task: str, metrics: Mapping[str, float]) -> float | None:
    """How well a task is solved, by the metrics that it declares: 0 is a blind guess or trivial answer, 1 no error.

    Args:
        task: its name.
        metrics: by tag; see `aux_tasks.AuxOutput`.

    Returns:
        None if the task has no such metric, or if a blind guess is always right.
    """
    accuracy, chance = (metrics.get(f"aux/{task}/{name}") for name in ("accuracy", "chance"))
    if accuracy is not None and chance is not None:
        return (accuracy - chance) / (1 - chance) if chance < 1 else None
    error = metrics.get(f"aux/{task}/error_ratio")
    return None if error is None else 1 - error


class SolvedTasks:
    """Warns once for each task that is solved in the first part of a run.

    Args:
        tasks: names of the tasks to watch.
        steps: of the run.
    """

    def __init__(self, tasks: Collection[str], steps: int) -> None:
        self._left, self._steps = set(tasks), steps
        self._windows: defaultdict[str, int] = defaultdict(int)  # solved ones in a row

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Read a row of the log, and warn of each task that it shows to be solved."""
        if step >= EARLY * self._steps:
            return
        for task in sorted(self._left):
            known = skill(task, metrics)
            if known is None:  # no update in this row
                continue
            self._windows[task] = self._windows[task] + 1 if known >= SOLVED else 0
            if self._windows[task] == WINDOWS:
                self._left.remove(task)
                log.warning("%s", advice(task, step, metrics))


def advice(task: str, step: int, metrics: Mapping[str, float]) -> str:
    """The warning of a task that is solved."""
    shown = (name for name in ("accuracy", "chance", "error_ratio") if f"aux/{task}/{name}" in metrics)
    numbers = ", ".join(f"{name} {metrics[f'aux/{task}/{name}']:.3g}" for name in shown)
    harder = ""
    if "crop_rows" in options_of(TASKS[task]):
        harder = f", or aux.{task}.options.crop_rows=[top,bottom] to hide a score bar that gives the answer away"
    return (
        f"aux.{task} is solved at step {step:,} ({numbers}): it hardly teaches the encoder any more. "
        f"Try a lower aux.{task}.weight{harder}"
    )
