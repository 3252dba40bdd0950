"""The runs of a sweep as Ray tasks, each of which runs the command; a killed run is retried and resumes."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from configs.sweep import RaySweep
from harness.process import thread_variables
from harness.ray_cluster import check_nodes, check_shared, connect

STORE_BYTES = 100 << 20  # size of Ray's object store, which stays nearly empty
POLL_SECONDS = 0.5
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class KilledError(RuntimeError):
    """A signal killed the process of a run, and Ray has to retry the task."""


class RayLauncher:
    """Starts runs on a Ray cluster.

    Args:
        command: arguments of the process, before the words of a run.
        settings: of the sweep.

    Raises:
        ValueError: Ray is missing, the cluster cannot be reached, or no node is large enough for one run.
    """

    def __init__(self, command: Sequence[str], settings: RaySweep) -> None:
        self._ray = connect("sweep", settings.address, object_store_memory=STORE_BYTES)
        check_nodes(self._ray, "sweep.cpus", "CPU", settings.cpus)
        check_nodes(self._ray, "sweep.gpus", "GPU", settings.gpus)
        self._command, threads = list(command), max(1, int(settings.cpus))
        self._variables = thread_variables(threads)
        self._task = self._ray.remote(
            num_cpus=settings.cpus,
            num_gpus=settings.gpus,
            max_retries=settings.retries,
            retry_exceptions=[KilledError],
        )(run_command)

    def start(self, words: Sequence[str], output: Path) -> "RayProcess":
        """Queue one run; its output is appended to `output`."""
        stop = output.with_suffix(".stop")
        stop.unlink(missing_ok=True)
        arguments = ([*self._command, *words], str(Path.cwd()), str(output), str(stop), self._variables)
        return RayProcess(self._ray, self._task.remote(*arguments), output, stop)

    def close(self) -> None:
        """Leave the cluster."""
        self._ray.shutdown()


class RayProcess:
    """A run on the cluster, with the methods of `subprocess.Popen` that a sweep uses."""

    def __init__(self, ray: Any, task: Any, output: Path, stop: Path) -> None:
        self._ray, self._task, self._output, self._stop = ray, task, output, stop

    def poll(self) -> int | None:
        """The exit code, or None while the run is queued or runs."""
        if not self._ray.wait([self._task], timeout=0)[0]:
            return None
        self._stop.unlink(missing_ok=True)
        try:
            return int(self._ray.get(self._task))
        except self._ray.exceptions.RayError as error:
            with self._output.open("a") as output:
                output.write(f"\n{str(error).strip().splitlines()[-1]}\n")
            return 1

    def send_signal(self, signum: int) -> None:
        """SIGTERM saves and ends the run; other signals do not reach it."""
        if signum == signal.SIGTERM:
            self._stop.touch()


def run_command(command: Sequence[str], folder: str, output: str, stop: str, variables: dict[str, str]) -> int:
    """Run the command in the shared `folder` until it ends. When the file `stop` appears, tell it to save and end.

    Raises:
        KilledError: a signal killed it.
        ValueError: the folder does not exist on this node.
    """
    check_shared(folder, "sweep")
    if (Path(folder) / stop).exists():  # told to end while it was queued
        return 128 + signal.SIGTERM
    with (Path(folder) / output).open("ab") as printed:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env=os.environ | variables,
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
    asked = False
    while process.poll() is None:
        if not asked and (Path(folder) / stop).exists():
            process.terminate()
            asked = True
        time.sleep(POLL_SECONDS)
    if process.returncode < 0 and not asked:
        raise KilledError(f"signal {-process.returncode} killed the run")
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _die_with_parent() -> None:
    """Let the kernel kill this process together with Ray's worker: a retried task must find the run folder free."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
