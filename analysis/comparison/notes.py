"""Warnings about a comparison: different evaluations or rewards, unfinished runs, too few seeds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from math import comb
from typing import Any

from analysis.comparison.groups import protocol
from analysis.comparison.measure import FEW, Cell, Comparison, machine
from analysis.comparison.runs import Run
from configs.schema import flatten
from envs.base import NO_EFFECT

NOT_SIMULATORS = ("sidequest", "torch", "numpy", "python", "platform", "cpu")
SAME_LENGTH = 0.98  # share of the longest run from which a run counts as equally long
UNSEEN = NO_EFFECT | {"num_envs", "name"}  # keys of an evaluation environment that change no score


@dataclass(frozen=True)
class Note:
    """A warning, and the labels of the groups that it concerns; without labels it concerns all."""

    text: str
    labels: tuple[str, ...] = ()
    task: str = ""


def notes(comparison: Comparison) -> list[Note]:
    """All warnings about a comparison."""
    found = [replace(note, task=task) for task in comparison.tasks for note in _of_task(comparison, task)]
    runs = [run for group in comparison.groups for run in group.all_runs]
    if len(runs) == 1:
        found.append(Note("There is one run: nothing to compare it with, and no interval."))
    elif len(comparison.groups) == 1:
        found.append(Note("All runs differ in the seed alone: there is one group, and nothing to compare it with."))
    return found


def marks(found: list[Note], label: str, task: str) -> str:
    """The numbers of the notes on a group on a task: ` [1] [3]`."""
    return "".join(f" [{i}]" for i, note in enumerate(found, 1) if label in note.labels and task == note.task)


def _of_task(comparison: Comparison, task: str) -> Iterator[Note]:
    cells = comparison.of_task(task)
    checks: dict[str, Callable[[Run], Any]] = {
        "evaluated under protocol {value[0]} with {value[1]} random actions": protocol,
        "evaluated in {value} episodes": lambda run: run.report["summary"].get("n"),
        "evaluated in an environment with {value}": _eval_env,
        "evaluated with {value}": _simulators,
    }
    for text, of in checks.items():
        yield from _unlike(task, cells, text, of)
    if len({cell.group.settings.get("goal.space") for cell in cells}) > 1:
        yield Note(
            f"{task}: rewards are of different goal spaces, whose units differ: compare success rates and distances to "
            "the goal, not returns."
        )
    yield from _short(task, cells)
    lacks: dict[str, Callable[[Run], bool]] = {
        "is a file of scores, whose protocol is not known": lambda run: not run.config,
        "has no final evaluation": lambda run: bool(run.config) and not run.report,
        "has a report that may be older than its log": lambda run: run.state.startswith("stopped"),
    }
    for text, holds in lacks.items():
        odd = [(cell, o.run) for cell in cells for o in cell.outcomes if holds(o.run)]
        for label, own in groupby(odd, lambda one: str(one[0].group.label)):
            states = ", ".join(f"seed {run.seed} ({run.state})" for _, run in own)
            yield Note(f"{task}: {label} {text}: {states}.", (label,))
    machines = {machine(o.run) for cell in cells for o in cell.outcomes if o.seconds is not None and o.run.report}
    if len(machines) > 1:
        yield Note(f"{task}: times of different machines ({'; '.join(sorted(machines))}): do not compare them.")
    yield from _few(task, cells)


def _unlike(task: str, cells: list[Cell], text: str, of: Callable[[Run], Any]) -> Iterator[Note]:
    """A note for each way in which groups were evaluated unlike the first one."""
    evaluated = [(cell, of(o.run)) for cell in cells for o in cell.outcomes if o.run.report]
    for value in dict.fromkeys(repr(value) for _, value in evaluated[1:]):
        if value != repr(evaluated[0][1]):
            odd = {cell.group.label: other for cell, other in evaluated if repr(other) == value}
            first, other = evaluated[0][1], next(iter(odd.values()))
            said, usual = (text.format(value=_apart(*v)) for v in ((other, first), (first, other)))
            yield Note(f"{task}: {', '.join(odd)}: {said}; {evaluated[0][0].group.label}: {usual}.", tuple(odd))


def _apart(value: Any, other: Any) -> Any:
    """A value as a note shows it: of a mapping, the keys whose values differ from those of another."""
    if not isinstance(value, dict):
        return value
    keys = [key for key in {**value, **other} if value.get(key, ...) != other.get(key, ...)]
    return ", ".join(f"{key}={value.get(key, 'none')}" for key in sorted(keys))


def _eval_env(run: Run) -> dict[str, Any]:
    env = flatten(run.report.get("env") or {})
    # Older reports have "" where no folder was given.
    return {key: value for key, value in sorted(env.items()) if key not in UNSEEN and value != ""}


def _simulators(run: Run) -> str:
    versions = dict(run.report.get("versions") or {})
    return ", ".join(f"{name} {version}" for name, version in versions.items() if name not in NOT_SIMULATORS)


def _short(task: str, cells: list[Cell]) -> Iterator[Note]:
    """Notes on groups whose ended runs are shorter than the longest run."""
    longest = max(o.run.steps for cell in cells for o in cell.outcomes)
    for cell in cells:
        ended = [o.run for o in cell.outcomes if not o.run.state.startswith("running")]
        own = [run for run in ended if run.steps < SAME_LENGTH * longest]
        if own:
            steps = ", ".join(f"seed {run.seed} {run.steps:,}" for run in own)
            text = f"fewer agent steps than the longest run ({longest:,}): {steps}. Its curve stops there."
            yield Note(f"{task}: {cell.group.label} has {text}", (cell.group.label,))


def _few(task: str, cells: list[Cell]) -> Iterator[Note]:
    """Notes on groups whose seeds are too few for their interval."""
    for n in range(1, FEW):
        labels = tuple(cell.group.label for cell in cells if len(cell.outcomes) == n)
        if not labels:
            continue
        if n == 1:
            yield Note(f"{task}: one seed of {', '.join(labels)}: no interval, and other seeds may differ.", labels)
            continue
        yield Note(
            f"{task}: {n} seeds of {', '.join(labels)} have {comb(2 * n - 1, n)} distinct resamples: the interval lies "
            "between the lowest and the highest run and covers the true mean less often than 95 %. Read the points."
            + (" With fewer than four scores the IQM is the mean." if n < 4 else ""),
            labels,
        )
