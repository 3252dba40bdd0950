"""Reading runs: folders of trainings, reports kept as JSON, and a user's own CSV files."""

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from glob import glob
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.comparison.scores_csv import read_scores, with_seed
from configs.schema import flatten
from envs import ENVS
from harness.files import read_regular
from harness.metrics import read_rows
from harness.plain_yaml import LARGEST, parse_plain
from harness.process import in_use
from harness.provenance import read_json

log = logging.getLogger(__name__)

SCORE = "rollout/score"  # mean return of the training episodes since the row before
EPISODES = "rollout/episodes"  # number of these episodes
EXPECTED = "expected run folders (config.yaml, metrics.jsonl), reports kept as .json, or .csv files"


@dataclass(frozen=True)
class Run:
    """A training, or as much of one as its files tell."""

    name: str  # path
    task: str  # label of the environment
    seed: int
    config: Mapping[str, Any]  # every value by dotted key; empty if there is none
    rows: list[dict[str, Any]]  # of the log
    report: Mapping[str, Any] = field(default_factory=dict)  # of the final evaluation; empty if there is none
    state: str = "finished"
    label: str = ""  # of the group, for a run without config

    @property
    def steps(self) -> int:
        """Agent steps so far."""
        return max((row["step"] for row in self.rows), default=0)

    @property
    def tasks(self) -> list[str]:
        """Names of the auxiliary tasks."""
        return sorted({key.split(".")[1] for key in self.config if key.startswith("aux.")})

    @property
    def final(self) -> float | None:
        """Mean return of the final evaluation."""
        return self.evaluated("mean")

    def evaluated(self, name: str) -> float | None:
        """A number in the summary of the final evaluation."""
        value: Any = (self.report.get("summary") or {}).get(name)
        return float(value) if is_number(value) else None

    def series(self, tag: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """The agent steps at which a metric was logged, and its values."""
        found = [(row["step"], row[tag]) for row in self.rows if is_number(row.get(tag))]
        steps, values = zip(*found, strict=True) if found else ((), ())
        return np.array(steps, dtype=np.int64), np.array(values, dtype=np.float64)

    def episodes(self) -> NDArray[np.float64]:
        """The number of training episodes in each value of `SCORE`; 1 where the log does not tell it."""
        counts: list[Any] = [row.get(EPISODES) for row in self.rows if is_number(row.get(SCORE))]
        return np.array([count if is_number(count) and count > 0 else 1 for count in counts], dtype=np.float64)

    def clock(self) -> NDArray[np.float64]:
        """Agent steps and seconds (2, P) of the rows, without those of evaluations."""
        found = [
            (row["step"], tick[0])
            for row in self.rows
            if (tick := _tick(row)) and not _has(row, "eval/")  # its seconds are the evaluation's
        ]
        return np.array(found, dtype=np.float64).reshape(-1, 2).T

    def learning(self) -> NDArray[np.float64]:
        """Seconds and updates (2, P) up to each row of the training from the row before, since learning began.

        Evaluations, diagnoses and probes log rows of their own when they end, so their seconds are left out.
        """
        pairs = [(_tick(a), _tick(b)) for a, b in pairwise(self.rows) if _has(b, "train/", "rollout/")]
        found = [(b[0] - a[0], b[1] - a[1]) for a, b in pairs if a and b and a[1] > 0]
        return np.array(found, dtype=np.float64).reshape(-1, 2).T


def _tick(row: Mapping[str, Any]) -> tuple[float, float] | None:
    """The seconds and updates up to a row; None if it has no clock."""
    clock = row.get("clock")
    if not isinstance(clock, dict) or not is_number(clock.get("seconds")):
        return None
    return clock["seconds"], clock["updates"] if is_number(clock.get("updates")) else 0


def _has(row: Mapping[str, Any], *beginnings: str) -> bool:
    return any(tag.startswith(beginnings) for tag in row)


def is_number(value: Any) -> bool:
    """Whether a value from a file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def find_runs(words: Iterable[str]) -> list[Path]:
    """The run folders, kept reports and CSV files that paths and patterns name. Folders are searched for runs.

    Raises:
        ValueError: a path or pattern names none.
    """
    found: dict[Path, Path] = {}
    for word in words:
        paths = [Path(word)] if Path(word).exists() else [Path(path) for path in sorted(glob(word, recursive=True))]
        inside = [run for path in paths for run in _runs_in(path)]
        if not inside:
            raise ValueError(f"no runs in {word}: {EXPECTED}")
        found |= {path.resolve(): path for path in inside}
    if not found:
        raise ValueError(f"no runs are given: {EXPECTED}")
    return list(found.values())


def _runs_in(path: Path) -> list[Path]:
    if not path.is_dir() or (path / "config.yaml").is_file():
        return [path]
    return sorted(config.parent for config in path.rglob("config.yaml"))


def read_runs(paths: Iterable[Path]) -> list[Run]:
    """The trainings among `paths`. A warning is logged for anything else, and for damaged logs.

    Raises:
        ValueError: no training is left, or a CSV file is wrong.
    """
    runs: list[Run] = []
    files: list[Path] = []
    for path in paths:
        if path.suffix == ".csv":
            files.append(path)
            continue
        try:
            runs.append(_read_kept(path) if path.suffix == ".json" else _read_folder(path))
        except (OSError, TypeError, ValueError) as error:
            log.warning("left out: %s", error if str(path) in str(error) else f"{path}: {error}")
    known = sorted({run.task for run in runs})
    for path in files:
        runs += _read_csv(path, known)
    if not runs:
        raise ValueError(f"no training is left to compare: {EXPECTED}")
    return runs


def _read_folder(folder: Path) -> Run:
    if folder.is_file():
        raise ValueError(f"{folder} is not a folder, a .json or a .csv")
    tree = read_yaml(read_regular(folder / "config.yaml", LARGEST).decode(), folder / "config.yaml")
    if not {"agent", "env"} <= tree.keys():
        raise ValueError(f"{folder} is not a training of an agent")
    if not (folder / "metrics.jsonl").exists():
        raise ValueError(f"{folder} has no metrics.jsonl")
    rows, damaged = read_rows(folder / "metrics.jsonl")
    if damaged:
        log.warning("%s: %d torn or damaged lines are skipped", folder / "metrics.jsonl", damaged)
    report = read_report(folder / "report.json") if (folder / "report.json").exists() else {}
    steps = max((row["step"] for row in rows), default=0)
    total = tree["steps"] if isinstance(tree.get("steps"), int) else 0
    state = "finished" if report else f"not evaluated, at step {steps:,}"
    if (not report or steps < total) and in_use(folder):
        state, report = f"running, at step {steps:,} of {total:,}", {}  # a report is of fewer steps
    elif report and steps < total and tree.get("until_score") is None:
        state = f"stopped, at step {steps:,} of {total:,}"
    return Run(str(folder), task_name(tree["env"]), _seed(tree, folder), flatten(tree), rows, report, state)


def _read_kept(path: Path) -> Run:
    """A report together with its training, as benchmarks keep it in results/."""
    report = read_report(path)
    training = report.get("training")
    if not isinstance(training, dict) or not {"config", "games"} <= training.keys():
        raise ValueError(f"{path} holds no training: give the run folder, {path.parent}")
    tree = read_yaml(str(training["config"]), path)
    games = ((*game, 1)[:3] for game in training["games"])  # without a count, one episode
    rows: list[dict[str, Any]] = [{"step": int(step), SCORE: score, EPISODES: count} for step, score, count in games]
    rows.append({"step": int(training.get("steps", 0))})
    return Run(str(path), task_name(tree.get("env")), _seed(tree, path), flatten(tree), rows, report)


def _read_csv(path: Path, tasks: list[str]) -> Iterator[Run]:
    if len(tasks) > 1:
        raise ValueError(f"{path}: which of the tasks {', '.join(tasks)} is it of? compare one task at a time")
    label, seed = with_seed(path)
    for own, rows in read_scores(path).items():
        logged = [
            {"step": step, SCORE: score} | ({} if seconds is None else {"clock": {"seconds": seconds}})
            for step, score, seconds in rows
        ]
        task = tasks[0] if tasks else "scores"
        yield Run(
            str(path), task, seed if own is None else own, {}, logged, state="from a file", label=f"{label} (file)"
        )


def read_report(path: Path) -> dict[str, Any]:
    """A report of an evaluation.

    Raises:
        ValueError, OSError: the file cannot be read, or is not a report.
    """
    try:
        report = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a report: {error}") from error
    if not isinstance(report.get("summary"), dict):
        raise ValueError(f"{path} is not an evaluation report")
    return report


def read_yaml(content: str, path: Path) -> dict[str, Any]:
    """The keys of a config, which may be somebody else's, as plain data.

    Raises:
        ValueError: the content is not a config.
    """
    try:
        return parse_plain(content)
    except ValueError as error:
        raise ValueError(f"{path} is not a config: {error}") from error


def task_name(env: Any) -> str:
    """The label of an environment by its config, which may be of an older version."""
    if not isinstance(env, dict):
        return str(env)
    try:
        return ENVS[str(env.get("name"))](**env).label
    except (KeyError, TypeError, ValueError):
        return str(env.get("game") or "_".join(str(env[key]) for key in ("domain", "task", "name") if key in env))


def _seed(tree: Mapping[str, Any], path: Path) -> int:
    seed = tree.get("seed")
    if not isinstance(seed, int):
        raise ValueError(f"{path} has no seed in its config")
    return seed
