"""What may happen to a program. A fault is a function of a Case; it raises AssertionError where something was lost."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from chaos_help import (
    AFTER,
    OUTPUT,
    PROGRAMS,
    RUN,
    Ended,
    Program,
    check_whole,
    logged_step,
    newest_step,
    remains,
    run,
    start,
)

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
MOST_MEMORY = 1 << 34  # bytes of addresses that a program with a random config may ask for


@dataclass(frozen=True)
class Case:
    """A program, what it leaves undisturbed, and one try of a fault."""

    program: Program
    whole: Path  # where it ran undisturbed
    start: Path  # what its working folder has at the start
    seconds: float  # that it took
    folder: Path  # empty: the working folder of this try
    rng: random.Random

    def fresh(self) -> None:
        """Make the working folder as it is at the start."""
        shutil.copytree(self.start, self.folder, dirs_exist_ok=True)

    def finished(self) -> None:
        """Make the working folder as the undisturbed program left it; links between checkpoints stay links."""
        subprocess.run(["cp", "-a", f"{self.whole}/.", str(self.folder)], check=True)
        (self.folder / OUTPUT).unlink(missing_ok=True)

    def moment(self) -> float:
        """A random time within the run, from before its first step to after its last, in seconds."""
        return self.rng.uniform(0, 1.1 * self.seconds)

    def again(self) -> Ended:
        """Run the same command once more, which has to complete the work."""
        return run(self.program, self.folder).check(0)


Fault = Callable[[Case], None]


def kill(case: Case) -> None:
    """SIGKILL at random moments, up to three times; the same command then leaves what it leaves undisturbed."""
    case.fresh()
    for _ in range(case.rng.randint(1, 3)):
        running = start(case.program, case.folder)
        time.sleep(case.moment())
        running.send(signal.SIGKILL)
        running.wait().check(-signal.SIGKILL, 0)
    case.again()
    check_whole(case.folder, remains(case.whole))


def stop(case: Case) -> None:
    """SIGINT, SIGTERM or SIGHUP: nothing that was logged is lost, and the same command goes on to the end."""
    case.fresh()
    signum = case.rng.choice(STOPPING)
    running = start(case.program, case.folder)
    time.sleep(case.moment())
    running.send(signum)
    running.wait().check(128 + signum, 0, -signum)  # the last: before the program's first line
    assert newest_step(case.folder) >= logged_step(case.folder), "steps in the log are in no checkpoint"
    case.again()
    assert remains(case.folder).keys() == remains(case.whole).keys(), "not complete"


def save(case: Case) -> None:
    """SIGUSR1, again and again: the program goes on to its end."""
    case.fresh()
    running = start(case.program, case.folder)
    time.sleep(0.3)  # the interpreter and its handlers: before them there is nothing to save
    for _ in range(case.rng.randint(1, 5)):
        time.sleep(case.moment() / 5)
        running.send(signal.SIGUSR1)
    running.wait().check(0)
    assert remains(case.folder).keys() == remains(case.whole).keys(), "not complete"


def imports(case: Case) -> None:
    """A signal within the first seconds of the real command: one line, or the run goes on."""
    case.fresh()
    signum = case.rng.choice([*STOPPING, signal.SIGUSR1])
    command = [sys.executable, str(Path(f"{case.program.command}.py").absolute()), *case.program.words]
    process = subprocess.Popen(command, cwd=case.folder, stdout=-1, stderr=-2, text=True, start_new_session=True)
    time.sleep(case.rng.uniform(0.3, 6))
    os.killpg(process.pid, signum)
    text, _ = process.communicate(timeout=100)
    codes = (0,) if signum == signal.SIGUSR1 else (128 + signum, 0)
    Ended(process.returncode, text, 0).check(*codes)


def damage(case: Case) -> None:
    """A file of the newest checkpoint, or of the folder, damaged: the run falls back, or is refused in one line."""
    case.finished()
    checkpoints = sorted((case.folder / RUN / "checkpoints").glob("step_*"))
    if case.program.command not in ("train", "pretrain"):  # reads none
        checkpoints = []
    inside = [path for path in checkpoints[-1].rglob("*") if path.is_file()] if checkpoints else []
    beside = [path for path in (case.folder / RUN).iterdir() if path.is_file()]
    path = case.rng.choice(inside if inside and case.rng.random() < 0.7 else beside)
    what = case.rng.choice(["truncated", "flipped", "deleted", "linked", "swapped", "empty"])
    shared = path.stat().st_nlink > 1
    _damage(path, what, case, checkpoints)
    ended = run(case.program, case.folder).check(0, 2)
    if path in inside and ended.code == 2:
        assert shared, f"{path.name} {what}: the checkpoint before it is not used: {ended.text[-300:]}"
        assert "checkpoint" in ended.errors[0], ended.errors
    if path in inside and ended.code == 0:
        expected = remains(case.whole)
        assert remains(case.folder).get("checkpoint") == expected["checkpoint"], f"{path.name} {what}: other weights"


def _damage(path: Path, what: str, case: Case, checkpoints: list[Path]) -> None:
    content = bytearray(path.read_bytes())
    position = case.rng.randrange(max(1, len(content)))
    other = next((twin for twin in checkpoints[0].rglob(path.name) if twin != path), None) if checkpoints else None
    match what:
        case "truncated":
            os.truncate(path, position)
        case "flipped" if content:
            with path.open("r+b") as file:  # in place: a hard link to it is damaged too
                file.seek(position)
                file.write(bytes([content[position] ^ 1 << case.rng.randrange(8)]))
        case "linked":
            path.rename(case.folder / "elsewhere")
            path.symlink_to(case.folder / "elsewhere")
        case "swapped" if other:
            path.unlink()
            shutil.copy(other, path)
        case "empty":
            os.truncate(path, 0)
        case _:
            path.unlink()


def hostile(case: Case) -> None:
    """A link, pipe, device or folder in place of any file: nothing outside is touched, nothing hangs."""
    case.finished()
    outside = case.folder / "outside"
    outside.write_text("secret")
    root = case.folder / RUN
    path = case.rng.choice([path for path in root.rglob("*") if path.is_file()])
    path.unlink()
    what = case.rng.choice(["link", "dangling", "pipe", "device", "folder", "loop"])
    match what:
        case "link":
            path.symlink_to(outside)
        case "dangling":
            path.symlink_to(case.folder / "made")
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
    run(case.program, case.folder).check(0, 2)
    assert outside.read_text() == "secret", f"{path.name}: a link is followed when writing"
    assert not (case.folder / "made").exists(), f"{path.name}: a dangling link is followed when writing"


def full_disk(case: Case) -> None:
    """Files may not grow beyond a random size, as on a full disk; with space again, the same command completes."""
    case.fresh()
    limit = int(10 ** case.rng.uniform(3, 6.5))

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    run(case.program, case.folder, limited).check(0, 2)
    case.again()
    expected, left = remains(case.whole), remains(case.folder)
    assert left.get("checkpoint") == expected.get("checkpoint"), "other weights"
    assert left.keys() == expected.keys(), f"not complete: {sorted(expected.keys() - left.keys())}"


def broken_output(case: Case) -> None:
    """Output into a closed pipe, a full disk or nowhere: the program does what it does undisturbed."""
    case.fresh()
    kind = case.rng.choice(["pipe", "full", "closed"])

    def broken() -> None:
        if kind == "pipe":
            reader, target = os.pipe()
            os.close(reader)
        else:
            target = os.open("/dev/full", os.O_WRONLY)
        for number in (1, 2):
            os.dup2(target, number) if kind != "closed" else os.close(number)
        if kind == "closed":
            sys.stdout = sys.stderr = None  # type: ignore[assignment]

    run(case.program, case.folder, broken).check(0)
    check_whole(case.folder, remains(case.whole))


def not_finite(case: Case) -> None:
    """NaN or infinity in a loss, a weight or a reward: named in one line, and never saved."""
    import chaos_nan

    case.fresh()
    value, at = case.rng.choice([float("nan"), float("inf")]), case.rng.randint(1, 8)
    where = case.rng.choice(["weight", "loss"] + ["reward"] * (case.program.command == "train"))
    ended = run(case.program, case.folder, lambda: chaos_nan.poison(case.program, where, value, at)).check(2)
    assert any(word in ended.errors[0] for word in ("nan", "inf")), ended.errors
    chaos_nan.check_finite_folder(case.folder / RUN)
    if where == "reward":
        case.again()


def random_config(case: Case) -> None:
    """One to three values of the config replaced by others: a run, or one line of error."""
    import chaos_config

    case.fresh()
    words = chaos_config.words(case.program, case.rng)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))

    program = case.program.having(*words)
    try:
        run(program, case.folder, limited).check(0, 2)
    except AssertionError as error:
        raise AssertionError(f"{' '.join(words)}: {error}") from error


ALL, TRAININGS = tuple(PROGRAMS), tuple(name for name in PROGRAMS if name not in AFTER)
FAULTS: dict[Fault, tuple[str, ...]] = {
    kill: ALL,
    stop: ALL,
    save: ALL,
    imports: ALL,
    damage: ALL,
    hostile: ALL,
    full_disk: ALL,
    broken_output: ALL,
    not_finite: TRAININGS,
    random_config: ALL,
}
