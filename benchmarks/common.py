"""What the benchmarks share: options, runs side by side, kept reports, tables and the blocks of pages."""

import json
import os
import re
import shlex
import signal
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from itertools import chain, groupby
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from analysis.comparison.groups import Group
from analysis.comparison.measure import Comparison, compare
from analysis.comparison.notes import notes
from analysis.comparison.output import markdown_table
from analysis.comparison.runs import Run, read_runs
from analysis.comparison.tables import tables
from analysis.statistics import t_interval
from configs.schema import PretrainConfig
from datasets import Episodes, EpisodeSampler
from encoders.base import measure_norms
from envs import EnvConfig
from experiment.command_line.composition import freeze
from experiment.command_line.overrides import compose_words
from experiment.folders.run_folder import claim_run_dir
from experiment.pretraining.run import Pretraining, PretrainingParts
from experiment.probing.build import Probing, sees_gray, split
from experiment.sources.build import build_source
from experiment.training.build import build_initial_encoder
from experiment.training.charts import open_logger
from harness.errors import first_line
from harness.metrics import read_rows
from harness.process import pick_device
from harness.provenance import write_json
from harness.signals import GracefulExit
from pretrain import learn

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "results"
RESULT = "result.json"  # the last that a run writes


def options(**defaults: Any) -> dict[str, Any]:
    """The `key=value` words of the command line over `defaults`, each of its default's type; others end the program."""
    if wrong := [word for word in sys.argv[1:] if "=" not in word]:
        sys.exit(f"{wrong[0]}: give key=value")
    given = dict(word.split("=", 1) for word in sys.argv[1:])
    if unknown := given.keys() - defaults.keys():
        sys.exit(f"unknown {', '.join(unknown)}: there are {', '.join(defaults)}")
    return defaults | {name: type(defaults[name])(word) for name, word in given.items()}


def this_command(script: str) -> str:
    """`python benchmarks/SCRIPT.py steps=100`: how the program was called."""
    return shlex.join(["python", f"benchmarks/{Path(script).name}", *sys.argv[1:]])


def need(what: str, remedy: str) -> None:
    """End the program and say how to get `what`, a package or a folder such as data/mnist, if it is missing."""
    if not (Path(what).is_dir() if "/" in what else find_spec(what)):
        sys.exit(f"error: {what} is missing: {remedy}")


def need_env(env: EnvConfig) -> None:
    """End the program in one line where an environment cannot be built: a package or a renderer is missing."""
    try:
        replace(env, num_envs=1).build().close()
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(f"error: {first_line(error)}")


def config_of(name: str, words: Sequence[str], kind: Any) -> Any:
    """The frozen config of a command line."""
    return freeze(compose_words(name, *words).config, kind)


def side_by_side(task: Callable[..., None], runs: Iterable[tuple[Any, ...]], jobs: int) -> list[tuple[Any, ...]]:
    """Call `task` with the arguments of each run in a process of one thread, `jobs` at a time.

    Returns the runs that failed; what went wrong is on stderr, and the others go on. Ctrl-C and SIGTERM end them all.
    """
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # of the children
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    running: set[BaseProcess] = set()

    def alone(run: tuple[Any, ...]) -> bool:
        process = get_context("spawn").Process(target=task, args=run)
        process.start()
        running.add(process)
        process.join()
        running.remove(process)
        print(*run, "done" if process.exitcode == 0 else f"FAILED with exit code {process.exitcode}", flush=True)
        return process.exitcode != 0

    waiting = list(runs)
    with ThreadPoolExecutor(jobs) as pool:
        try:
            failed = list(pool.map(alone, waiting))
        except (KeyboardInterrupt, SystemExit):
            pool.shutdown(wait=False, cancel_futures=True)
            for process in tuple(running):
                process.terminate()
            raise
    return [run for run, bad in zip(waiting, failed, strict=True) if bad]


def result_of(folder: Path, steps: int) -> dict[str, Any] | None:
    """What a finished run of so many steps left in its folder."""
    path = folder / RESULT
    result = json.loads(path.read_text()) if path.is_file() else {}
    return result if result.get("steps") == steps else None


def measured(
    run: Callable[..., None], runs: Mapping[Path, tuple[Any, ...]], steps: int, jobs: int
) -> tuple[dict[Path, dict[str, Any]], list[tuple[Any, ...]]]:
    """Call `run` for the runs that have no result of so many steps, `jobs` at a time.

    Args:
        run: writes the result into the folder of the run.
        runs: the arguments of each run, by its folder.
        steps: of each run.
        jobs: processes.

    Returns:
        The results by folder, in the order of `runs`, and the runs that failed.
    """
    failed = side_by_side(run, [given for folder, given in runs.items() if not result_of(folder, steps)], jobs)
    return {folder: result for folder in runs if (result := result_of(folder, steps))}, failed


def train(config: PretrainConfig, parts: PretrainingParts) -> None:
    """Every update of a pretraining, from the first."""
    with (
        claim_run_dir(config) as folder,
        open_logger(folder, step=0, total=config.steps, tasks=config.aux) as logger,
        GracefulExit() as stop,
    ):
        run = Pretraining(config, parts, folder, logger)
        learn(run, stop)
    if run.saved < run.step:
        sys.exit(f"{folder}: saved up to step {run.saved}; make space and run the same command")
    if stop.requested:
        sys.exit(stop.exit_code)


def log_of(run: Path) -> list[dict[str, Any]]:
    """What a run measured, line by line."""
    return read_rows(run / "metrics.jsonl")[0]


def curve(games: Iterable[Sequence[float]], steps: int, window: int) -> list[float]:
    """Mean of the logged returns in each window of steps."""
    windows = [[score for step, score, *_ in games if low < step <= low + window] for low in range(0, steps, window)]
    if not all(windows):
        sys.exit(f"no episode ended in some {window:,} steps; give more steps")
    return [statistics.mean(scores) for scores in windows]


def games(run: Path) -> list[tuple[int, float, int]]:
    """Each agent step where episodes were logged, with mean return and number of those since the row before."""
    rows = [row for row in log_of(run) if "rollout/score" in row]
    return [(row["step"], row["rollout/score"], row.get("rollout/episodes", 1)) for row in rows]


def runs_and_folder() -> tuple[list[Path], Path]:
    """The run folders of the command line, and the folder `out=` of their report; without it the program ends.

    Without runs the folder is results/, whose page and figure follow from the JSON there.
    """
    runs = [Path(word) for word in sys.argv[1:] if not word.startswith("out=")]
    out = [Path(word.removeprefix("out=")) for word in sys.argv[1:] if word.startswith("out=")]
    if runs and not out:
        sys.exit("out=... is missing: out=my_report for a page of these runs, out=results to add them to the project's")
    return runs, (out or [RESULTS])[-1]


def write_page(path: Path, script: str, render_page: Callable[[str, Path], str]) -> None:
    """Renew the block of a benchmark in a page, which is made where there is none."""
    page = path.read_text() if path.is_file() else with_block(None, script, "")
    path.write_text(render_page(page, path.parent))


def keep_report(run: Path, path: Path, **more: Any) -> None:
    """Put a run's report, with its config, its training episodes and what else there is of it, into a JSON.

    Its folder, wherever it is, becomes `runs/<name of the file>` there.
    """
    report, config = ((run / name).read_text() for name in ("report.json", "config.yaml"))
    told = "/".join(["runs", *path.stem.split("-")])
    for place in (str(run.resolve()), str(run)):
        report, config = report.replace(place, told), config.replace(place, told)
    training = {"config": config, "games": games(run), **more}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(json.loads(report) | {"training": training}, path)


def keep_reports(page: str, measure: Callable[[Path], dict[str, Any]] = lambda run: {}) -> Path:  # noqa: ARG005
    """`keep_report` of the runs <world>/<arm>/s<seed> of the command line, with what `measure` says of each, as
    <page>-<world>-<arm>-s<seed>.json; returns their folder.
    """
    runs, folder = runs_and_folder()
    for run in runs:
        keep_report(run, folder / f"{page}-{'-'.join(run.parts[-3:])}.json", **measure(run))
    return folder


def kept_reports(page: str, folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """What `keep_report` put there, by file name: <page>-<world>-<arm>-s<seed>.json, of some without world."""
    reports = {path.name: json.loads(path.read_text()) for path in sorted(folder.glob(f"{page}-*-s*.json"))}
    return {name: report for name, report in reports.items() if "training" in report}


def arms(reports: Mapping[str, dict[str, Any]]) -> list[tuple[str, dict[str, dict[str, Any]]]]:
    """<world>-<arm> and its reports, of reports by file name."""
    groups = groupby(reports, lambda name: name.partition("-")[2].rpartition("-")[0])
    return [(arm, {name: reports[name] for name in names}) for arm, names in groups]


def compared(page: str, baseline: str, folder: Path = RESULTS) -> Comparison:
    """The kept reports <page>-<world>-<arm>-s<seed>.json of all worlds: arms are the groups, the baseline first."""
    found: dict[str, dict[str, list[Run]]] = {}
    for run in read_runs([folder / name for name in kept_reports(page, folder)]):
        _, world, arm, _ = Path(run.name).stem.split("-")
        found.setdefault(arm, {}).setdefault(world, []).append(replace(run, task=world, label=arm))
    return compare([Group({}, found[arm], {}) for arm in sorted(found, key=lambda arm: (arm != baseline, arm))])


def comparison_tables(comparison: Comparison, *titles: str) -> str:
    """The tables of a comparison whose titles begin so, with its notes and links to the reports."""
    found, links = notes(comparison), []
    for group in comparison.groups:
        paths = [Path(run.name) for run in group.all_runs]
        links.append(f"{group.label}: " + ", ".join(f"[{path.stem}]({path.name})" for path in paths))
    shown = [markdown_table(each) for each in tables(comparison, found) if each.title.startswith(titles)]
    noted = [f"[{i}] {note.text}" for i, note in enumerate(found, 1)]
    return "\n\n".join([*shown, *noted, "Reports:", "\n".join(f"- {line}" for line in links)]) + "\n\n"


def made_on(results: Iterable[dict[str, Any]]) -> str:
    """The versions of torch that made these results, and how many each."""
    counts = Counter(result["versions"]["torch"] for result in results)
    return ", ".join(f"{count} x {version}" if len(counts) > 1 else version for version, count in counts.items())


def gains(before: Sequence[float], after: Sequence[float]) -> dict[str, Any]:
    """Means over the seeds, and the 95 % t interval of the paired difference, if there is more than one seed."""
    found = [b - a for a, b in zip(before, after, strict=True)]
    names = {"before": statistics.mean(before), "after": statistics.mean(after), "gain": statistics.mean(found)}
    return names | {"interval": t_interval(found)}


def mean_cell(values: Sequence[float], digits: int) -> str:
    """The mean with half of its 95 % t interval."""
    bounds = t_interval(values)
    half = f" ± {(bounds[1] - bounds[0]) / 2:.{digits}f}" if bounds else ""
    return f"{statistics.mean(values):.{digits}f}{half}"


def gain_cells(found: dict[str, Any], digits: int) -> list[str]:
    """Before, after, and the difference with half of its interval."""
    return [f"{found['before']:.{digits}f}", f"{found['after']:.{digits}f}", gain_cell(found, digits)]


def gain_cell(found: dict[str, Any], digits: int) -> str:
    """The difference with half of its interval."""
    bounds = found["interval"]
    half = f" ± {(bounds[1] - bounds[0]) / 2:.{digits}f}" if bounds else ""
    return f"{found['gain']:+.{digits}f}{half}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON of results, empty where there is no such file."""
    return json.loads(path.read_text()) if path.is_file() else {}


def renewed(
    kept: Iterable[dict[str, Any]], rows: Iterable[dict[str, Any]], order: Iterable[str]
) -> list[dict[str, Any]]:
    """`rows` in place of those of the same task in `kept`, sorted by task."""
    by_name = {row["task"]: row for row in chain(kept, rows)}
    return [by_name[name] for name in order if name in by_name]


def origins(rows: Iterable[dict[str, Any]]) -> str:
    """A list of what made the rows (`made`), each with the tasks of its rows."""
    named: dict[str, list[str]] = {}
    for row in rows:
        named.setdefault(row["made"], []).append(row["task"])
    return "".join(f"- {made}: {', '.join(names)}\n" for made, names in named.items())


def with_block(page: str | None, script: str, content: str) -> str:
    """The text of a page with `content` in the block of a benchmark; all other text is written by people.

    None is a page that has nothing but the block.

    The block stands between `<!-- table: made by python benchmarks/SCRIPT -->` and `<!-- end -->`.

    Raises:
        ValueError: the page does not have exactly one such block.
    """
    begin, end = f"<!-- table: made by python benchmarks/{Path(script).name} -->\n", "<!-- end -->"
    page = f"{begin}{end}" if page is None else page
    found, count = re.subn(f"{re.escape(begin)}.*?{end}", lambda _: f"{begin}{content}{end}", page, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"the page has {count} blocks that begin with {begin!r}, instead of one")
    return found


def standardized_state(episodes: Episodes) -> Tensor:
    """The state (N, D) at all recorded frames: the labels that vary, with mean 0 and standard deviation 1 each."""
    state = np.stack([values for values in episodes.labels.values() if np.ptp(values) > 0], axis=1)
    return torch.from_numpy((state - state.mean(0)) / state.std(0)).float()


def finish(failed: Sequence[tuple[Any, ...]]) -> None:
    """End the program, not well if runs failed."""
    if failed:
        sys.exit(f"{len(failed)} runs failed: " + ", ".join("/".join(map(str, run)) for run in failed))


def untrained_probing(run: PretrainConfig) -> Probing:
    """The labelled pictures of a pretraining, for probes of its encoder before it has learned anything."""
    episodes = build_source(run.source, run.env, run.seed)
    device = pick_device(run.device)
    sampler = EpisodeSampler(episodes, frame_stack=1, grayscale=sees_gray(run), device=device)
    encoder = build_initial_encoder(run.encoder, sampler.obs_shape, run.seed).to(device)
    splits = split(episodes, run.test_share, run.seed)
    measure_norms(encoder, sampler.observe(splits["held-out"][0][::4]))
    labels, place = {"class": np.asarray(episodes.labels["class"])}, Path("untrained")
    return Probing(run, run.source, run.env, sampler, place, {"initial": encoder}, labels, [], splits, place)
