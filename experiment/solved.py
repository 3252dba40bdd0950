"""Auxiliary tasks that teach no more, for they were solved early."""

import logging
from collections import defaultdict
from collections.abc import Collection, Mapping

from aux_tasks import TASKS
from aux_tasks.config import options_of

log = logging.getLogger(__name__)

SOLVED = 0.99  # of the way from a blind guess, or from the trivial answer, to no error
WINDOWS = 3  # rows of the log in a row
EARLY = 0.5  # share of the run


def skill(task: str, metrics: Mapping[str, float]) -> float | None:
    """How well a task is solved by the metrics that it declares: 0 like a blind guess, 1 without error.

    Args:
        task: its name.
        metrics: by tag; see `aux_tasks.AuxOutput`.

    Returns:
        None where the task has no such metric, or where the guess is always right.
    """
    accuracy, chance = (metrics.get(f"aux/{task}/{name}") for name in ("accuracy", "chance"))
    if accuracy is not None and chance is not None:
        return (accuracy - chance) / (1 - chance) if chance < 1 else None
    error = metrics.get(f"aux/{task}/error_ratio")
    return None if error is None else 1 - error


class SolvedTasks:
    """Says once of each task that it is solved, if that is so in the first part of a run.

    Args:
        tasks: those of the run, of some weight.
        steps: of the run.
    """

    def __init__(self, tasks: Collection[str], steps: int) -> None:
        self._left, self._steps = set(tasks), steps
        self._windows: defaultdict[str, int] = defaultdict(int)  # solved ones in a row

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Warn if a row of the log is the one that shows it."""
        for task in sorted(self._left) if step < EARLY * self._steps else ():
            known = skill(task, metrics)
            if known is None:  # no update in this row
                continue
            self._windows[task] = self._windows[task] + 1 if known >= SOLVED else 0
            if self._windows[task] == WINDOWS:
                self._left.remove(task)
                log.warning("%s", advice(task, step, metrics))


def advice(task: str, step: int, metrics: Mapping[str, float]) -> str:
    """What to do about a task that is solved."""
    shown = (name for name in ("accuracy", "chance", "error_ratio") if f"aux/{task}/{name}" in metrics)
    numbers = ", ".join(f"{name} {metrics[f'aux/{task}/{name}']:.3g}" for name in shown)
    harder = ""
    if "crop_rows" in options_of(TASKS[task]):
        harder = f", or aux.{task}.options.crop_rows=[top,bottom] to hide a score bar that gives the answer away"
    return (
        f"aux.{task} is solved at step {step:,} ({numbers}): it hardly teaches the encoder any more. "
        f"Try a lower aux.{task}.weight{harder}"
    )
