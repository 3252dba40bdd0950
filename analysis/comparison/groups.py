"""Groups of runs that differ only in the seed, and labels for the differences between groups."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any

from analysis.comparison.runs import Run
from harness.derive import shorten
from harness.suggest import nearest

MOST_WORDS = 4  # of a label, above which values that more than half of the groups have are left out
ABSENT = object()  # value of a key that a config lacks


@dataclass(frozen=True)
class Group:
    """Runs of one setting on one or several tasks."""

    words: Mapping[str, Any]  # what tells it from the others: {"aux": "rotation", "learning_rate": 0.001}
    runs: dict[str, list[Run]]  # by task, ordered by seed
    settings: Mapping[str, Any]  # every key that differs between the groups

    @property
    def label(self) -> str:
        """`aux=rotation learning_rate=0.001`; agent and auxiliary tasks where there are no such words."""
        first = self.all_runs[0]
        name = "+".join([str(_get(first, "agent.name") or "agent"), *first.tasks])
        words = " ".join(f"{key}={value}" for key, value in self.words.items())
        return shorten(first.label or words or name)

    @property
    def all_runs(self) -> list[Run]:
        """The runs of all tasks."""
        return [run for runs in self.runs.values() for run in runs]


def group_runs(runs: Sequence[Run], ignored: Collection[str]) -> list[Group]:
    """Group runs; groups without auxiliary tasks come first.

    A key tells groups apart if it differs between two runs of the same task. A key that differs only between tasks
    belongs to the tasks.

    Args:
        runs: the runs to group.
        ignored: keys that tell no groups apart, such as the seed.

    Raises:
        ValueError: two runs of a group have the same seed, or were evaluated under different protocols.
    """
    keys = differing_keys(runs, ignored)
    members: dict[tuple[str, ...], list[Run]] = defaultdict(list)
    for run in runs:
        members[run.label, *(_comparable(run, key) for key in keys)].append(run)
    firsts = [of_group[0] for of_group in members.values()]
    words = iter(_particular([first for first in firsts if first.config], keys))
    groups = [
        Group(next(words) if first.config else {}, _by_task(of_group), {key: _get(first, key) for key in keys})
        for first, of_group in zip(firsts, members.values(), strict=True)
    ]
    for group in groups:
        _check(group)
    return sorted(groups, key=lambda group: (not group.all_runs[0].config, len(group.all_runs[0].tasks), group.label))


def with_baseline(groups: list[Group], baseline: str | None) -> list[Group]:
    """The groups with the baseline first: the group with this label, or the only one with `baseline` in its label.

    Raises:
        ValueError: there is no such group, or there are several.
    """
    if baseline is None:
        return groups
    labels = [group.label for group in groups]
    found = [label for label in labels if label == baseline] or [label for label in labels if baseline in label]
    if len(found) != 1:
        what = f"is in {len(found)} labels" if found else "matches no label"
        raise ValueError(f"baseline={baseline} {what}: {nearest(baseline, labels)}")
    return sorted(groups, key=lambda group: group.label != found[0])


def differing_keys(runs: Sequence[Run], ignored: Collection[str]) -> list[str]:
    """The config keys that tell groups apart."""
    by_task: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        if run.config:
            by_task[run.task].append(run)
    keys = dict.fromkeys(key for run in runs for key in run.config if key not in ignored)
    return [key for key in keys if any(len({_comparable(run, key) for run in same}) > 1 for same in by_task.values())]


def _get(run: Run, key: str) -> Any:
    """A value, without the seed in a path: each seed may start from its own encoder."""
    value = run.config.get(key)
    return re.sub(rf"(?<=/)s{run.seed}(?=/|$)", "s*", value) if isinstance(value, str) else value


def _comparable(run: Run, key: str) -> str:
    """A value as text, equal for 1 and 1.0, which differ between older and newer configs."""
    value = _get(run, key)
    return repr(float(value) if isinstance(value, int) and not isinstance(value, bool) else value)


def _by_task(runs: Sequence[Run]) -> dict[str, list[Run]]:
    ordered = sorted(runs, key=attrgetter("task", "seed"))
    return {task: list(same) for task, same in groupby(ordered, attrgetter("task"))}


def _check(group: Group) -> None:
    for runs in group.runs.values():
        seeds: dict[int, Run] = {}
        for run in runs:
            if run.seed in seeds:
                other = seeds[run.seed].name
                raise ValueError(f"{other} and {run.name} are both seed {run.seed} of {group.label}: leave one out")
            seeds[run.seed] = run
        evaluated = [run for run in runs if run.report]
        for run in evaluated[1:]:
            if protocol(run) != protocol(evaluated[0]):
                raise ValueError(
                    f"{run.name} was evaluated under {protocol(run)[0]}, {evaluated[0].name} of the same group under "
                    f"{protocol(evaluated[0])[0]}: evaluate one again, with json=RUN/report.json"
                )


def protocol(run: Run) -> tuple[str, Any]:
    """The name and the share of random actions of the final evaluation's protocol."""
    kept = run.report.get("protocol")
    kept = kept if isinstance(kept, dict) else {}
    return str(kept.get("name")), kept.get("epsilon")


# --- labels ---


def _particular(firsts: Sequence[Run], keys: Sequence[str]) -> list[dict[str, Any]]:
    """The words that tell each group from the others, by its first run."""
    parts = [key.partition(".")[0] for key in keys if key.startswith("aux.") or re.fullmatch(r"\w+\.name", key)]
    words = dict.fromkeys(sorted(parts, key=lambda part: part != "aux"))  # auxiliary tasks first
    chosen = [{part: _chosen(run, part) for part in words} for run in firsts]
    told: dict[str, list[Any]] = {part: [choice[part] for choice in chosen] for part in words}
    told = {part: values for part, values in told.items() if len({*values}) > 1}
    for key in keys:
        if not _implied(key, firsts, chosen):
            told[_short(key, keys)] = [_get(run, key) if key in run.config else ABSENT for run in firsts]
    left_out = {}
    for word, values in told.items():
        if len(told) > MOST_WORDS and word != "aux" and ABSENT not in values:
            left_out[word] = _usual(values)
    return [
        {word: values[i] for word, values in told.items() if values[i] not in (ABSENT, left_out.get(word, ABSENT))}
        for i in range(len(firsts))
    ]


def _usual(values: Sequence[Any]) -> Any:
    """The value of more than half of the groups, if there is one."""
    value, count = Counter(map(repr, values)).most_common(1)[0]
    return next(one for one in values if repr(one) == value) if 2 * count > len(values) else ABSENT


def _implied(key: str, firsts: Sequence[Run], chosen: Sequence[Mapping[str, str]]) -> bool:
    """Whether the chosen member of its config group, or the auxiliary tasks, tell the value of a key."""
    part = key.partition(".")[0]
    if part not in chosen[0]:
        return False
    seen = {(choice[part], _comparable(run, key)) for run, choice in zip(firsts, chosen, strict=True)}
    return len(seen) == len({choice for choice, _ in seen})


def _chosen(run: Run, part: str) -> str:
    """The chosen member of a config group, or the auxiliary tasks."""
    return ("+".join(run.tasks) or "none") if part == "aux" else str(_get(run, f"{part}.name"))


def _short(key: str, keys: Sequence[str]) -> str:
    """`rotation.weight` for `aux.rotation.weight`; `learning_rate` for `agent.learning_rate` if that is unique."""
    plain = key.replace(".options.", ".").removeprefix("aux.")
    last = plain.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in keys) == 1
    return last if alone and not key.startswith("aux.") else plain
