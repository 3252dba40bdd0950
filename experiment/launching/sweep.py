"""A sweep: several runs at once, a process for each, a table of their progress, and one exit code."""

import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from rich.live import Live
from rich.table import Table

from configs.schema import Config, RunConfig
from configs.sweep import LocalSweep, RaySweep
from experiment.command_line.composition import COMMANDS, Composed
from experiment.command_line.overrides import path_word
from experiment.folders.run_folder import run_folder, with_run_dir
from experiment.launching.ray_tasks import RayLauncher, RayProcess
from experiment.training.precision import is_auto, settle_sweep
from harness.metrics import parse_row, read_tail, seconds_of
from harness.process import available_cores, in_use, thread_variables
from harness.progress import CONSOLE, clock, short
from harness.signals import GracefulExit

log = logging.getLogger(__name__)
POLL_SECONDS, SIGNAL_SECONDS = 0.5, 0.02
LINE_SECONDS = 60  # between lines of progress where there is no terminal


@dataclass
class Run:
    """One run of a sweep."""

    label: str  # the words that not all runs share
    words: tuple[str, ...]
    folder: Path
    config: RunConfig
    process: "subprocess.Popen[bytes] | RayProcess | None" = None
    rows: list[tuple[float, int]] = field(default_factory=list)  # (seconds, step) of the newest metrics
    score: float | None = None
    code: int | None = None  # the exit code

    @property
    def output(self) -> Path:
        """The file with the output of the run."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def state(self) -> str:
        """One word for the table."""
        if self.code is None:
            return "waiting" if self.process is None else "running"
        return {0: "done", 129: "saved", 130: "saved", 143: "saved"}.get(self.code, "failed")

    def start(self, launcher: "LocalLauncher | RayLauncher") -> None:
        """Start the run, on this machine or on the cluster."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        if not in_use(self.folder):  # else it is the log of a run that goes on
            self.output.unlink(missing_ok=True)
        self.process = launcher.start(self.words, self.output)

    def refresh(self) -> None:
        """Update exit code, step and score."""
        assert self.process is not None
        code = self.process.poll()
        if code is not None:
            self.code = code if code >= 0 else 128 - code
        for row in filter(None, map(parse_row, read_tail(self.folder / "metrics.jsonl"))):
            point = (seconds_of(row) or 0.0, row["step"])
            if not self.rows or point > self.rows[-1]:
                self.rows = [*self.rows[-1:], point]
            self.score = row.get("eval/mean_reward", row.get("rollout/score", self.score))

    @property
    def step(self) -> int:
        """The newest step in the log."""
        return self.rows[-1][1] if self.rows else 0

    @property
    def speed(self) -> float | None:
        """Steps per second between the two newest rows of the log."""
        if len(self.rows) < 2:
            return None
        (begun, first), (now, last) = self.rows
        return (last - first) / (now - begun) if now > begun else None

    @property
    def last_line(self) -> str:
        """The last line of the output."""
        lines = [line.decode(errors="replace").strip() for line in read_tail(self.output)]
        return next(filter(None, reversed(lines)), "it printed nothing")


class LocalLauncher:
    """Starts runs on this machine.

    Args:
        command: arguments of the process, before the words of a run.
        threads: of each run.
    """

    def __init__(self, command: Sequence[str], threads: int) -> None:
        self._command = command
        self._variables = thread_variables(threads)

    def start(self, words: Sequence[str], output: Path) -> "subprocess.Popen[bytes]":
        """Start one run. The terminal sends it no signals: the sweep passes each on, once."""
        with output.open("ab") as printed:
            return subprocess.Popen(
                [*self._command, *words],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=subprocess.STDOUT,
                env=os.environ | self._variables,
                start_new_session=True,
            )

    def close(self) -> None:
        """Nothing to close."""


def sweep(name: str, jobs: Sequence[Composed], module: ModuleType, settings: LocalSweep | RaySweep) -> int:
    """Run every job in a process of its own.

    SIGINT, SIGTERM, SIGHUP and SIGUSR1 go to each process that runs. A run that fails does not end the others.

    Args:
        name: of the config, that of a training or of a pretraining.
        jobs: the composed runs.
        module: of the command; each process runs its file or name.
        settings: where the runs run, and how many at once.

    Returns:
        The exit code of a signal to the sweep, or else the highest of the runs.

    Raises:
        ValueError: two runs share a folder, or the settings do not fit the machine or the cluster.
    """
    runs = [_run(name, job) for job in jobs]
    _check_folders(runs)
    launcher: LocalLauncher | RayLauncher
    if isinstance(settings, RaySweep):
        launcher, at_once, threads = RayLauncher(_command(module), settings), len(runs), max(1, int(settings.cpus))
        log.info("%d runs on Ray, %g CPUs and %g GPUs each", len(runs), settings.cpus, settings.gpus)
    else:
        cores = available_cores()
        at_once = min(settings.jobs or cores, len(runs))
        launcher = LocalLauncher(_command(module), threads := max(1, cores // at_once))
        each = " or ".join(map(str, sorted({job.config.threads or threads for job in jobs})))
        log.info("%d runs, %d at a time, %s threads each", len(runs), at_once, each)
        if at_once > 1 and any(job.config.device != "cpu" for job in jobs) and torch.cuda.is_available():
            log.info("%d at a time on one GPU, %s", at_once, gpu_sharing())
    _share_precision(runs, threads)
    live = Live(console=CONSOLE, refresh_per_second=4) if CONSOLE.is_terminal else None
    try:
        with GracefulExit() as stop, live or nullcontext():
            _follow(runs, launcher, at_once, stop, _Screen(live))
    except BaseException:
        _pass_on([run for run in runs if run.process and run.code is None], signal.SIGTERM)
        raise
    finally:
        launcher.close()
    for run in runs:
        if run.state == "failed":
            log.error("%s failed (exit code %d): %s", run.label, run.code, run.last_line)
    if COMMANDS[name] is Config and all(run.code == 0 for run in runs):
        folders = dict.fromkeys(str(run.folder.parent) for run in runs)  # each with all of its seeds
        log.info("compare       python compare.py %s", shlex.join(folders))
    return stop.exit_code or max(run.code or 0 for run in runs)


def gpu_sharing() -> str:
    """How processes share a GPU. Where MPS runs, there is its pipe."""
    if (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists():
        return "side by side under MPS"
    return "in turns: MPS, which lets their kernels run side by side, does not run (nvidia-cuda-mps-control -d)"


def _follow(
    runs: Sequence[Run], launcher: "LocalLauncher | RayLauncher", at_once: int, stop: GracefulExit, screen: "_Screen"
) -> None:
    """Start the runs, `at_once` at a time, until all have ended; after a signal, until the started ones have saved."""
    while any(run.code is None and (run.process or not stop.requested) for run in runs):
        running = [run for run in runs if run.process and run.code is None]
        for run in runs:
            if not stop.requested and run.process is None and len(running) < at_once:
                run.start(launcher)
                running.append(run)
        if stop.save_requested:
            stop.save_requested = False
            _pass_on(running, signal.SIGTERM if stop.requested else signal.SIGUSR1)
        _sleep(stop)
        for run in running:
            run.refresh()
        screen.show(runs)


def _sleep(stop: GracefulExit) -> None:
    """Wait until the runs are checked again; return early when a signal has to be passed on."""
    until = time.monotonic() + POLL_SECONDS
    while time.monotonic() < until and not stop.save_requested:
        time.sleep(SIGNAL_SECONDS)


def _run(name: str, job: Composed) -> Run:
    kind = COMMANDS[name]
    assert issubclass(kind, RunConfig)
    config = with_run_dir(job, kind)
    return Run(" ".join(job.apart), job.words, run_folder(config), config)


def _share_precision(runs: Sequence[Run], threads: int) -> None:
    """Give all runs with `agent.precision=auto` the same precision, so that they compare; folders stay the same."""
    auto = [(run, run.config) for run in runs if isinstance(run.config, Config) and is_auto(run.config)]
    precisions = settle_sweep([config for _, config in auto], threads)
    for (run, _), precision in zip(auto, precisions, strict=True):
        if precision:
            run.words = (*run.words, f"agent.precision={precision}", path_word("run_dir", run.folder))


def _check_folders(runs: Sequence[Run]) -> None:
    seen: dict[Path, Run] = {}
    for run in runs:
        if run.folder in seen:
            both = " and ".join(" ".join(r.words) for r in (seen[run.folder], run))
            raise ValueError(f"two runs share the folder {run.folder} ({both}): leave run_dir out, or repeat no value")
        seen[run.folder] = run


def _command(module: ModuleType) -> list[str]:
    """The arguments that run the command of this process again."""
    assert module.__file__ is not None
    spec = module.__spec__
    if spec is not None and "." in spec.name:  # in an installed package
        return [sys.executable, "-m", spec.name]
    return [sys.executable, module.__file__]


def _pass_on(runs: Sequence[Run], signum: signal.Signals) -> None:
    for run in runs:
        assert run.process is not None
        with suppress(ProcessLookupError):
            run.process.send_signal(signum)


class _Screen:
    """A live table on a terminal; elsewhere a line when a state changes, and one a minute for each run."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._shown: dict[Path, tuple[str, float]] = {}

    def show(self, runs: Sequence[Run]) -> None:
        """Show the progress of the runs."""
        if self._live:
            self._live.update(_table(runs))
            return
        now = time.monotonic()
        for run in runs:
            state, since = self._shown.get(run.folder, ("waiting", now))
            if run.state != state or (run.state == "running" and now - since > LINE_SECONDS):
                log.info("%s", "  ".join(filter(None, _cells(run))))
                self._shown[run.folder] = (run.state, now)


def _table(runs: Sequence[Run]) -> Table:
    table = Table("run", "state", "step", "steps/s", "left", "score")
    for run in runs:
        table.add_row(*_cells(run))
    return table


def _cells(run: Run) -> tuple[str, ...]:
    speed = run.speed if run.state == "running" else None
    return (
        run.label,
        run.state,
        f"{run.step:,} of {run.config.steps:,}",
        short(speed) if speed else "",
        clock((run.config.steps - run.step) / speed) if speed else "",
        f"{run.score:.2f}" if run.score is not None else "",
    )
