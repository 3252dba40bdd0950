"""Resources of the process: threads, allocator, device, and locks on folders."""

import ctypes
import fcntl
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.backends.cpu import get_cpu_capability

from harness.checks import check_choice
from harness.files import open_regular

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LOCK_ATTEMPTS, LOCK_WAIT = 10, 0.05  # seconds


def tune_process(threads: int) -> int:
    """Set threads and allocator; returns the number of torch threads. Call it before the first large tensor.

    Args:
        threads: of torch; 0 for OMP_NUM_THREADS, or else the cores this process may use. They are limited to these
            cores, since threads that wait for a core make an update many times slower.

    Raises:
        ValueError: OMP_NUM_THREADS is not a number of threads.
    """
    cores = available_cores()
    asked = threads or _environment_threads() or cores
    if asked > cores:
        log.warning("threads: %d asked for, but this process may use %d cores: %d threads", asked, cores, cores)
    torch.set_num_threads(min(asked, cores))
    if platform.libc_ver()[0] == "glibc":
        # By default glibc gives megabyte blocks back to the kernel at every free; touching them again costs more
        # than the arithmetic of a small network.
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    return torch.get_num_threads()


def _environment_threads() -> int | None:
    """OMP_NUM_THREADS, or the first of its list of nesting levels ("4,2"); None if it is not set."""
    variable = os.environ.get("OMP_NUM_THREADS", "")
    first = variable.partition(",")[0].strip()
    if not variable:
        return None
    if not first.isdecimal() or not int(first):
        raise ValueError(f"OMP_NUM_THREADS={variable}: must be a number of threads, such as 1")
    return int(first)


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that limit a new process to so many torch threads."""
    return {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}


def available_cores() -> int:
    """The cores this process may use, by affinity and cgroup v2 quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, round(int(limit) / int(period))))
    return cores


def computes_bfloat16() -> bool:
    """Whether the CPU has bfloat16 at full speed: without AVX-512, x86 takes many times as long as in float32."""
    return get_cpu_capability() not in ("DEFAULT", "NO AVX", "AVX2")


def matmul_rate() -> float:
    """GFLOP/s of float32 1024 x 1024 matrix products, the best of five, to compare timings between machines."""
    a, seconds = torch.ones(1024, 1024), []
    for _ in range(5):
        start = time.perf_counter()
        a @ a
        seconds.append(time.perf_counter() - start)
    return 2 * 1024**3 / min(seconds) / 1e9


@contextmanager
def exclusive(folder: Path) -> Iterator[Path]:
    """Lock `folder` against other processes until the block, or the process, ends.

    Raises:
        ValueError: another process holds the lock.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK  # never follows a link, truncates or blocks
    with os.fdopen(os.open(folder / ".lock", flags, 0o666), "r+b", buffering=0) as lock:
        for attempt in range(LOCK_ATTEMPTS):  # `in_use` holds it for a moment
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if attempt == LOCK_ATTEMPTS - 1:
                    raise ValueError(f"{folder} is in use by another run: wait for it, or give run_dir=...") from error
                time.sleep(LOCK_WAIT)
        yield folder


def in_use(folder: Path) -> bool:
    """Whether a process holds the lock of `exclusive`; nothing is written."""
    try:
        with open_regular(folder / ".lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, ValueError):  # never locked
        return False
    return False


def pick_device(name: str) -> torch.device:
    """The torch device of a name. `auto` is CUDA if there is a CUDA device; `cuda:1` is the second one.

    Raises:
        ValueError: the kind of device is unknown, or CUDA was asked for and there is none.
    """
    check_choice("device", name.partition(":")[0], ("auto", "cpu", "cuda"))
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device={name}: this machine or this build of torch has no CUDA device; use device=cpu")
    return torch.device(name)
