"""Programs that are run in a forked process, and what must be true of them whatever happens."""

import hashlib
import importlib
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from harness.checkpoint import CheckpointError, load_latest
from harness.signals import guard_imports

RUN, OUTPUT = "run", "output.txt"  # in the working folder of a program
PATIENCE = 120.0  # seconds until a program hangs


@dataclass(frozen=True)
class Program:
    """A command line, run from an empty working folder; it leaves its results in `run`."""

    name: str
    command: str  # the module: train, pretrain, probe, evaluate, compare
    words: tuple[str, ...]

    def having(self, *words: str) -> "Program":
        """The same with more words, the last of which count."""
        return replace(self, words=(*self.words, *words))


TRAIN = """device=cpu threads=1 steps=60 learning_starts=12 replay_ratio=0.2 batch_size=4 replay.capacity=60 log_every=6
    diagnose_every=30 checkpoint_every=24 eval_episodes=3 run_dir=run"""
TOY = f"{TRAIN} env=toy env.num_envs=3 env.time_limit=9 encoder=der agent.hidden=8 agent.random_shift=2"
POINT = f"""{TRAIN} env=pointmass env.num_envs=3 env.time_limit=9 frame_stack=2 encoder=control_fast
    encoder.feature_dim=6 agent=sac agent.hidden=8 agent.random_shift=2 replay.n_step=1"""
GOALS = f"""{TRAIN} experiment=her_bitflip env.num_envs=3 env.bits=6 agent.hidden=8"""
PRETRAIN = """device=cpu threads=1 source=balls source.episodes=4 source.length=12 encoder=small steps=12 batch_size=8
    log_every=2 diagnose_every=6 checkpoint_every=4 run_dir=run"""
EVALUATE = "checkpoint=run episodes=4 num_envs=2 device=cpu json=run/again.json video=run/again.mp4"
PROBE = "checkpoint=run seeds=2 train_labels=20 test_labels=20 device=cpu threads=1 report=run/probe.json"
COMPARE = "runs=[run] out=run"


def _program(name: str, command: str, words: str) -> Program:
    return Program(name, command, tuple(words.split()))


DQN = _program(
    "DQN, prioritised replay, permutation",
    "train",
    f"{TOY} agent.average_tau=0.2 replay.prioritized=true aux=permutation",
)
SAC = _program("SAC, DBC", "train", f"{POINT} aux=dbc")
ADVERSARY = _program("pretraining with an adversary (BiGAN)", "pretrain", f"{PRETRAIN} aux=bigan")
PROGRAMS = {
    "dqn": DQN,
    "sac": SAC,
    "goals": _program("goals in hindsight", "train", GOALS),
    "adversary": ADVERSARY,
    "evaluation": _program("evaluation", "evaluate", EVALUATE),
    "probe": _program("probe", "probe", PROBE),
    "comparison": _program("comparison", "compare", COMPARE),
}
AFTER = {"evaluation": "dqn", "probe": "adversary", "comparison": "goals"}  # programs that read the run of another


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    code: int  # or minus the signal
    text: str  # all that it wrote
    seconds: float

    @property
    def errors(self) -> list[str]:
        """The lines that say what was wrong."""
        return [line for line in self.text.splitlines() if line.startswith("error: ")]

    def check(self, *codes: int) -> "Ended":
        """Raise AssertionError unless it ended with one of these codes and no traceback; 2 comes with one line."""
        assert self.code in codes, f"exit code {self.code}: {self.text[-600:]}"
        for sign in ("Traceback", "Exception ignored", "Fatal Python error"):
            assert sign not in self.text, self.text[-3000:]
        assert len(self.errors) == (self.code == 2), self.text[-600:]
        return self


class Running:
    """A program in a forked process, which leads a process group of its own."""

    def __init__(self, program: Program, folder: Path, prepare: Callable[[], None]) -> None:
        self._output, self._begun = folder / OUTPUT, time.monotonic()
        reader, ready = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            _child(program, folder, prepare, ready)
        os.close(ready)
        os.read(reader, 1)  # the program has begun: its handlers are there
        os.close(reader)

    def send(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        os.kill(self.pid, signum)  # it stays a zombie until `wait`

    def wait(self) -> Ended:
        """Until it ends.

        Raises:
            AssertionError: it hangs.
        """
        while time.monotonic() - self._begun < PATIENCE:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                text = self._output.read_text(errors="replace") if self._output.is_file() else ""
                return Ended(os.waitstatus_to_exitcode(status), text, time.monotonic() - self._begun)
            time.sleep(0.01)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it hangs: {self._output.read_text(errors='replace')[-600:]}")


def _child(program: Program, folder: Path, prepare: Callable[[], None], ready: int) -> None:
    """The program, from its imports on, in this process, which then ends."""
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        output = os.open(OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        for number in (1, 2):
            os.dup2(output, number)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
        logging.getLogger().handlers.clear()  # pytest's
        guard_imports()
        os.close(ready)
        prepare()
        code = importlib.import_module(program.command).main(list(program.words))
    except BaseException:  # noqa: BLE001 — told here, since no one outlives it to tell
        traceback.print_exc()
    finally:
        os._exit(code)


def start(program: Program, folder: Path, prepare: Callable[[], None] = lambda: None) -> Running:
    """Start a program in a folder; `prepare` is called in its process before it begins."""
    return Running(program, folder, prepare)


def run(program: Program, folder: Path, prepare: Callable[[], None] = lambda: None) -> Ended:
    """Run a program to its end."""
    return start(program, folder, prepare).wait()


def remains(folder: Path) -> dict[str, object]:
    """What a finished program leaves and another run of the same words must leave too, bit for bit."""
    left: dict[str, object] = {}
    root = folder / RUN
    if (root / "checkpoints").is_dir() and (newest := load_latest(root / "checkpoints")):
        left["checkpoint"] = json.loads((newest.path / "manifest.json").read_text())
    if (root / "metrics.jsonl").is_file():
        rows = [json.loads(line) for line in (root / "metrics.jsonl").read_text().splitlines()]
        left["metrics"] = [{name: value for name, value in row.items() if name != "clock"} for row in rows]
    for name in ("report.json", "again.json"):
        if (root / name).is_file():
            left[name] = json.loads((root / name).read_text())["summary"]
    if (root / "probe.json").is_file():
        left["probe.json"] = json.loads((root / "probe.json").read_text())["scores"]
    left |= {path.name: True for pattern in ("*.mp4", "*.html") for path in root.glob(pattern)}
    hashed = [path for pattern in ("*.safetensors", "*.csv") for path in root.glob(pattern)]
    return left | {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in hashed}


def check_whole(folder: Path, expected: dict[str, object]) -> None:
    """Raise AssertionError, naming what differs, unless a folder has what an undisturbed program left."""
    left = remains(folder)
    assert left.keys() == expected.keys(), f"{sorted(left)} instead of {sorted(expected)}"
    differ = [name for name in expected if left[name] != expected[name]]
    assert not differ, f"other {', '.join(differ)} than without the fault"


def newest_step(folder: Path) -> int:
    """The step of the newest whole checkpoint, 0 where there is none."""
    try:
        checkpoint = load_latest(folder / RUN / "checkpoints")
    except CheckpointError:
        return 0
    return checkpoint.step if checkpoint else 0


def logged_step(folder: Path) -> int:
    """The newest step in the log."""
    path = folder / RUN / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


@contextmanager
def patched(target: object, name: str, value: object) -> Iterator[None]:
    """Replace an attribute within the block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(target, name, value)
        yield
