"""All that needs a GPU in one command of minutes: tests, times of updates and of runs, then learning runs.

    python benchmarks/gpu.py [minutes=9] [device=cuda] [out=results] [updates=200] [seconds=15]

Writes OUT/gpu.json after each row and prints a table. Rows that the file holds are left out, and learning runs go on in
`runs/gpu`: run the same command again to continue. Give a new `out` to measure anew.

The machine needs Python 3.11 or later, a CUDA build of torch 2.10 or later, and the packages of pyproject.toml; rows
whose packages are missing say so. Without network, carry wheels:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 -d wheels NAMES
    pip install --no-index --no-deps --find-links wheels NAMES                     # there

Atari takes 5 MB: ale-py gymnasium farama-notifications hydra-core omegaconf stable-baselines3 captum, and
antlr4-python3-runtime, which `pip wheel` builds. Cartpole takes 33 MB more: mujoco dm-env dm-tree glfw pyopengl and
dm-control, whose wheel shrinks from 56 to 2 MB by `zip -d` of `dm_control/locomotion/*`,
`dm_control/suite/dog_assets/*` and `dm_control/mujoco/testing/*`; set MUJOCO_GL=egl. Videos take imageio-ffmpeg.
"""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from common import RESULTS, ROOT, config_of, log_of, options, read_json, table

from configs.schema import Config
from experiment.training.build import build
from experiment.training.collecting import LocalCollector
from experiment.training.run import Progress, Training, update
from harness.process import available_cores, tune_process
from harness.progress import Meter
from harness.provenance import versions, write_json

ARMS = {"eager": "agent.capture=off", "captured": "agent.capture=on"}
SPEED_ARMS = ARMS | {"overlapped": "agent.capture=on collect=overlap"}
STORED = "replay.storage=cuda"
PONG = f"experiment=pong_cpu aux=none until_score=null encoder=nature env.num_envs=16 {STORED}"
# Pixels and batch of the Control Suite, without its simulator.
CONTROL = (
    f"experiment=sac_cartpole env=pointmass env.size=84 env.grayscale=false env.num_envs=1 batch_size=256 {STORED}"
)
SHIFTS = "agent.random_shift=4"
TASKS = ("deepmdp", "dbc", "curl", "rotation", "permutation")
UPDATES = {
    "DQN, Nature, batch 32, PER": PONG,
    "DQN, quantile head": f"{PONG} agent.head=quantile",
    "DQN, rotation": f"{PONG} aux=rotation",
    "SAC, batch 256, shifts": f"{CONTROL} {SHIFTS}",
    **{f"SAC, {task}": f"{CONTROL} {SHIFTS} aux={task}" for task in TASKS},
    "DQN, bfloat16": f"{PONG} agent.precision=bfloat16",
    "SAC, network and batch of the papers": f"{CONTROL} {SHIFTS} batch_size=512 encoder=control agent.hidden=1024",
}
CARTPOLE = f"experiment=sac_cartpole batch_size=256 {SHIFTS} {STORED}"
SPEEDS = {  # words, runs at once, and arms
    "one Pong run, 16 copies": (f"{PONG} log_every=1000 env.threads=8", 1, tuple(SPEED_ARMS)),
    "16 Pong runs, 16 copies each": (f"{PONG} log_every=1000 replay.capacity=100000", 16, ("captured",)),
    "one cartpole run": (f"{CARTPOLE} log_every=250 env.processes=1", 1, ("captured", "overlapped")),
}
LEARNING_AT_ONCE = 6  # runs
DRQ = f"experiment=sac_paper batch_size=512 {SHIFTS} eval_episodes=20 diagnose_every=0 checkpoint_every=6250"
CLEAN = {"shifts": "aux=none", "deepmdp": "aux=deepmdp", "dbc_robust": "aux=dbc_robust", "curl": "aux=curl"}
LEARNING = {  # the most valuable first
    **{
        f"cartpole-100k-{arm}-s{seed}": f"{DRQ} {words} seed={seed}"
        for seed in range(3)
        for arm, words in CLEAN.items()
    },
    "pong-400k-s0": f"{PONG} steps=400000 seed=0 eval_episodes=30 diagnose_every=0",
    **{f"cartpole-500k-{arm}-s0": f"{DRQ} {words} seed=0 steps=62500" for arm, words in CLEAN.items()},
}
START_SECONDS = 90  # until every run learns
TRAIN = [sys.executable, str(ROOT / "train.py")]


class Watch:
    """Stands where a run's logger stands."""

    def __init__(self) -> None:
        self.meter = Meter("step", 0, 0)  # which is never entered and shows nothing


def ready(config: Config, rows: int = 64) -> Training:
    """A training whose replay holds so many steps of each copy."""
    parts, progress = build(config), Progress()
    parts.rollout.reset(1)
    for _ in range(rows):
        parts.replay.add(*parts.rollout.collect())
        progress.add(parts.rollout)
    return Training(config, parts, progress, Path(), Watch())  # type: ignore[arg-type]


def milliseconds(work: Callable[[], Any], repeats: int, wait: Callable[[], None]) -> tuple[float, float]:
    """Of a call, all of them finished on the device: the time, and that until the host was free again."""
    wait()
    begun = time.perf_counter()
    for _ in range(repeats):
        work()
    issued = time.perf_counter()
    wait()
    return 1e3 * (time.perf_counter() - begun) / repeats, 1e3 * (issued - begun) / repeats


def kernels(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds that the device computes in a call, and its kernels, by the profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(repeats):
            work()
        torch.cuda.synchronize()
    events = [event for event in profile.key_averages() if event.self_device_time_total > 0]
    busy = sum(event.self_device_time_total for event in events) / 1e3
    return {"kernel_ms": busy / repeats, "kernels": sum(event.count for event in events) / repeats}


def measure_update(words: str, device: str, updates: int) -> dict[str, Any]:
    """Milliseconds of an update with its sampling, and of an action of all copies, by arm."""
    tune_process(1)
    found: dict[str, Any] = {}
    on_gpu = device.startswith("cuda")
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    for arm, more in ARMS.items():
        config = config_of("config", [*words.split(), *more.split(), f"device={device}"], Config)
        run = ready(config)
        agent, rollout = run.parts.agent, run.parts.rollout
        assert isinstance(rollout, LocalCollector)
        learn, act = partial(update, run), partial(agent.act, rollout.observation, explore=True)
        for work in (learn, act):
            milliseconds(work, 20, wait)  # past warm-up and capture
        times = milliseconds(learn, updates, wait)
        found[arm] = {"update_ms": times[0], "issue_ms": times[1], "act_ms": milliseconds(act, updates, wait)[0]}
        found[arm] |= kernels(learn, 20) if on_gpu else {}
        found[arm]["copies"] = config.num_envs
        rollout.close()
    return found


def start(words: str, folder: Path, device: str) -> "subprocess.Popen[bytes]":
    """A training in a process of its own, whose output goes beside its folder."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [*TRAIN, *words.split(), "threads=1", f"device={device}", f"run_dir={folder}"]
    with folder.with_name(f"{folder.name}.log").open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"})


def stop(processes: list["subprocess.Popen[bytes]"], signum: int, seconds: float = 30) -> None:
    """End the trainings; those that take longer are killed."""
    for process in processes:
        if process.poll() is None:
            process.send_signal(signum)
    until = time.monotonic() + seconds
    for process in processes:
        try:
            process.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure_speed(
    words: str, jobs: int, arms: Sequence[str], seconds: float, folder: Path, device: str
) -> dict[str, Any]:
    """Agent steps a second of one or more runs, from their first update on, by arm."""
    found: dict[str, Any] = {}
    for arm in arms:
        more = SPEED_ARMS[arm]
        folders = [folder / f"{arm}-{time.time_ns()}-{job}" for job in range(jobs)]
        processes = [
            start(f"{words} {more} seed={job} steps=100000000 eval_episodes=0", path, device)
            for job, path in enumerate(folders)
        ]
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and all(process.poll() is None for process in processes):
            if all(map(learning_rows, folders)):
                time.sleep(seconds)
                break
            time.sleep(0.2)
        stop(processes, signal.SIGKILL)
        speeds = [steps_a_second(path) for path in folders]
        found[arm] = {"steps_per_second": sum(filter(None, speeds)), "runs": len([s for s in speeds if s])}
        if not any(speeds):
            raise RuntimeError(last_line(folders[0]))
    return found


def learning_rows(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's log since its first update."""
    return [row for row in log_of(run) if row["clock"]["updates"]] if (run / "metrics.jsonl").is_file() else []


def steps_a_second(run: Path) -> float | None:
    """Of a run that learns; None where the log has no two rows of it."""
    if len(rows := learning_rows(run)) < 2:
        return None
    seconds = rows[-1]["clock"]["seconds"] - rows[0]["clock"]["seconds"]
    return float((rows[-1]["step"] - rows[0]["step"]) / seconds) if seconds else None


def last_line(run: Path) -> str:
    """What a run printed last."""
    lines = run.with_name(f"{run.name}.log").read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def state_of(run: Path, words: str) -> dict[str, Any]:
    """How far a learning run is: its curve, and the scores of its end."""
    rows = log_of(run) if (run / "metrics.jsonl").is_file() else []
    curve = [(row["step"], row["rollout/score"]) for row in rows if "rollout/score" in row]
    state = {"words": words, "step": rows[-1]["step"] if rows else 0, "curve": curve, "said": last_line(run)}
    state["seconds"] = rows[-1]["clock"]["seconds"] if rows else 0
    report = run / "report.json"
    return state | ({"report": json.loads(report.read_text())} if report.is_file() else {})


class Session:
    """The JSON of a session, and its time."""

    def __init__(self, path: Path, minutes: float, device: str) -> None:
        self.path, self.device, self._end = path, device, time.monotonic() + 60 * minutes
        name = torch.cuda.get_device_name() if device.startswith("cuda") else "cpu"
        self.content = {"tests": {}, "updates": {}, "speeds": {}, "learning": {}} | read_json(path)
        self.content |= {"device": name, "cores": available_cores(), "versions": versions()}

    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def note(self, part: str, name: str, row: dict[str, Any]) -> None:
        """Keep a row at once."""
        self.content[part][name] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.content, self.path)
        told = {key: value for key, value in row.items() if key not in ("curve", "report", "output")}
        print(f"{part}: {name}: {json.dumps(told)[:400]}", flush=True)

    def missing(self, part: str, rows: dict[str, Any], seconds: float) -> list[str]:
        """Rows of a part that are not there yet, or failed, while there is time."""
        kept = self.content[part]
        return [name for name in rows if "error" in kept.get(name, {"error": ""})] if self.left() > seconds else []


def run_tests(session: Session) -> None:
    """The tests of a GPU."""
    for name in session.missing("tests", {"gpu": None}, 30):
        words = ["-m", "gpu", "-q", "--maxfail=20", "--no-header", str(ROOT / "tests")]
        command = [sys.executable, "-m", "pytest", *words]
        until = min(0.25 * session.left(), 150)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=until, cwd=ROOT, check=False)
            output = done.stdout + done.stderr
        except subprocess.TimeoutExpired as error:
            output = f"{(error.stdout or b'').decode()}\nstopped after {until:.0f} s"
        tail = output.strip().split("\n")
        row = {"output": output[-6000:], "summary": tail[-1]}
        failed = re.search(r"failed|error|stopped", tail[-1])
        session.note("tests", name, row | ({"error": tail[-1]} if failed else {}))


def run_updates(session: Session, updates: int) -> None:
    """Times of updates, in a process that is replaced after an error: one of the device would not go away."""
    pool: ProcessPoolExecutor | None = None
    for name in session.missing("updates", UPDATES, 30):
        if session.left() < 30:
            break
        pool = pool or ProcessPoolExecutor(1, get_context("spawn"))
        future: Future[dict[str, Any]] = pool.submit(measure_update, UPDATES[name], session.device, updates)
        try:
            row = future.result(min(90, session.left()))
        except Exception as error:  # noqa: BLE001 - the other rows go on
            row = {"error": f"{type(error).__name__}: {error}"[:500]}
            end(pool)
            pool = None
        session.note("updates", name, row)
    if pool:
        end(pool)


def end(pool: ProcessPoolExecutor) -> None:
    """Kill the process of a pool, which may hang."""
    for process in list((pool._processes or {}).values()):
        process.kill()
    pool.shutdown(cancel_futures=True)


def run_speeds(session: Session, seconds: float, folder: Path) -> None:
    """Steps a second of runs."""
    for name in session.missing("speeds", SPEEDS, 60):
        if session.left() < 60:
            return
        words, jobs, arms = SPEEDS[name]
        try:
            row = measure_speed(words, jobs, arms, seconds, folder / "speed", session.device)
        except (OSError, RuntimeError) as error:
            row = {"error": str(error)[:500]}
        session.note("speeds", name, row)


def run_learning(session: Session, folder: Path) -> None:
    """Learning runs, some at once, until the time is over."""
    waiting = [name for name in LEARNING if "report" not in session.content["learning"].get(name, {})]
    running: dict[str, subprocess.Popen[bytes]] = {}
    more = ARMS["captured"]
    while (waiting or running) and session.left() > 40:
        while waiting and len(running) < LEARNING_AT_ONCE:
            name = waiting.pop(0)
            running[name] = start(f"{LEARNING[name]} {more}", folder / name, session.device)
        time.sleep(0.5)
        for name in [name for name, process in running.items() if process.poll() is not None]:
            running.pop(name)
            session.note("learning", name, state_of(folder / name, LEARNING[name]))
    stop(list(running.values()), signal.SIGTERM)
    for name in running:
        session.note("learning", name, state_of(folder / name, LEARNING[name]))


def tables(content: dict[str, Any]) -> str:
    """What was measured, for people."""
    lines = [f"tests: {row['summary']}" for row in content["tests"].values()]
    names = ("update_ms", "kernel_ms", "issue_ms", "kernels", "act_ms")
    rows = []
    for name, row in content["updates"].items():
        for arm, found in row.items() if "error" not in row else [("error", {})]:
            cells = [f"{found[key]:.2f}" if key in found else "" for key in names]
            rows.append([name, arm if arm != "error" else row["error"][:80], *cells])
    lines += ["", table(["update", "arm", *names], rows)]
    rows = [
        [name, arm, *(f"{found[key]:.0f}" if arm != "error" else found[:80] for key in ("steps_per_second", "runs"))]
        for name, row in content["speeds"].items()
        for arm, found in row.items()
    ]
    lines += [table(["runs", "arm", "steps/s, sum", "runs"], rows)]
    rows = []
    for name, row in content["learning"].items():
        score = row.get("report", {}).get("summary", {}).get("mean")
        last = row["curve"][-1][1] if row["curve"] else None
        cells = ["" if value is None else f"{value:.1f}" for value in (last, score)]
        rows.append([name, str(row["step"]), f"{row['seconds']:.0f}", *cells])
    return "\n".join([*lines, table(["learning run", "step", "seconds", "last score", "evaluated"], rows)])


def main() -> None:
    """Measure what is not there yet."""
    given = options(
        minutes=9.0, device="cuda", out=str(RESULTS), updates=200, seconds=15.0, runs=str(ROOT / "runs" / "gpu")
    )
    if given["device"].startswith("cuda") and not torch.cuda.is_available():
        sys.exit("error: no CUDA device is here, or torch is a build for the CPU; device=cpu tries the command")
    missing = [name for name in ("hydra", "gymnasium", "ale_py", "dm_control") if not importlib.util.find_spec(name)]
    print(f"packages that are missing: {', '.join(missing) or 'none'}", flush=True)
    session = Session(Path(given["out"]) / "gpu.json", given["minutes"], given["device"])
    folder = Path(given["runs"])
    run_tests(session)
    run_updates(session, given["updates"])
    run_speeds(session, given["seconds"], folder)
    run_learning(session, folder)
    print(tables(session.content))


if __name__ == "__main__":
    main()
