"""How the process uses its machine: threads and the allocator."""

import ctypes
import os
import platform
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h


def tune_process(threads: int) -> int:
    """Settle threads and allocator before the first large tensor; returns the number of torch threads.

    Args:
        threads: of torch; 0 for OMP_NUM_THREADS, or else the cores this process may use.
    """
    torch.set_num_threads(threads or int(os.environ.get("OMP_NUM_THREADS") or available_cores()))
    if platform.libc_ver()[0] == "glibc":
        # By default glibc gives megabyte blocks back to the kernel at every free; touching them again costs more
        # than the arithmetic of a small network.
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
    return torch.get_num_threads()


def available_cores() -> int:
    """Cores by affinity, capped by the cgroup v2 quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")
    if quota.is_file():
        limit, period = quota.read_text().split()
        if limit != "max":
            cores = min(cores, max(1, round(int(limit) / int(period))))
    return cores
