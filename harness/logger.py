"""The log of a run: TensorBoard, metrics.jsonl, and one line of progress."""

import json
import logging
import math
import shutil
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from harness.files import replacing, write_png
from harness.finite import NonFiniteError
from harness.metrics import parse_row, read_rows, seconds_of
from harness.progress import Meter

log = logging.getLogger(__name__)


class MetricWindow:
    """Means of scalars over the updates since the last row of the log, summed on the device without synchronising."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], _Sums] = {}  # an update may lack some metrics

    def __bool__(self) -> bool:
        return bool(self._sums)

    def add(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Add the scalars of one update, without a host synchronisation."""
        names = tuple(metrics)
        if names not in self._sums:
            self._sums[names] = _Sums(next(iter(metrics.values())).device, len(names))
        self._sums[names].add(step, torch.stack(list(metrics.values())).detach())

    def drain(self) -> dict[str, float]:
        """The mean of each scalar, rounded to float32; the window is empty afterwards.

        Raises:
            NonFiniteError: names the first tensor that was not finite, and its step.
        """
        totals: dict[str, float] = defaultdict(float)
        counts: dict[str, int] = defaultdict(int)
        bad = []
        for names, sums in self._sums.items():
            for name, total, finite in zip(names, *sums.read(), strict=True):
                if finite < len(sums.steps):
                    bad.append((sums.steps[int(finite)], f"{name} is {total}"))
                totals[name] += total
                counts[name] += len(sums.steps)
        if bad:
            step, what = min(bad, key=itemgetter(0))
            raise NonFiniteError(f"{what} at step {step}")
        self._sums = {}
        return {name: float(np.float32(total / counts[name])) for name, total in totals.items()}


class _Sums:
    """Sums of K scalars over updates, and the number of updates before each was first not finite."""

    def __init__(self, device: torch.device, size: int) -> None:
        self.steps: list[int] = []  # of the updates
        self._total = torch.zeros(size, dtype=torch.float64, device=device)
        self._finite = torch.zeros(size, dtype=torch.float64, device=device)

    def add(self, step: int, values: Tensor) -> None:
        self.steps.append(step)
        self._total += values
        self._finite += (self._total - self._total) == 0  # false for ever once NaN or infinite: cheaper than isfinite

    def read(self) -> tuple[list[float], list[float]]:
        """The sums and the numbers of finite updates."""
        total, finite = torch.stack([self._total, self._finite]).tolist()  # one transfer
        return total, finite


class RunLogger:
    """Writes TensorBoard events and metrics.jsonl into `run_dir`; a resumed run has no duplicate rows.

    When the disk is full, the log has a gap, there is one warning, and the run goes on.

    Args:
        run_dir: folder of the run.
        step: agent step from which the run continues; later rows are dropped.
        total: agent steps of the whole run, for the remaining time.
        charts: layout of TensorBoard's custom scalars.
        first: second tags, by tag, under which metrics are logged again.
    """

    def __init__(
        self, run_dir: Path, *, step: int, total: int, charts: Mapping[str, Any], first: Mapping[str, str]
    ) -> None:
        self._start_step, self._started = step, time.monotonic()
        self._run_dir, self._path, self._first = run_dir, run_dir / "metrics.jsonl", first
        self._earlier = _drop_after(self._path, step)  # seconds
        self._file = self._path.open("a", buffering=1)  # line by line, for whoever watches
        new = not any(run_dir.glob("events.out.tfevents.*"))
        self.writer = SummaryWriter(str(run_dir), purge_step=step + 1 if step else 0)
        if new:  # once: purging does not reach it
            self.writer.add_custom_scalars(charts)
            self.writer.flush()
        self.meter = Meter("step", total, step)
        self._process = psutil.Process()
        self._warned: int | None = None  # error number of the last warning
        self._threads_hook, threading.excepthook = threading.excepthook, self._pass_over

    def __enter__(self) -> "RunLogger":
        self.meter.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.meter.__exit__()
        self.flush()
        for file in (self.writer, self._file):
            with self._warn_on_disk_error():
                file.close()
        threading.excepthook = self._threads_hook

    def _pass_over(self, failed: threading.ExceptHookArgs) -> None:
        """Print no traceback when a full disk ends TensorBoard's thread: the next call raises that error again."""
        kept = getattr(failed.thread, "exception", None)  # what TensorBoard's thread keeps for the next call
        if not (isinstance(kept, OSError) and kept is failed.exc_value):
            self._threads_hook(failed)

    @contextmanager
    def _warn_on_disk_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != self._warned:
                log.warning("the log will have gaps: %s", error)
            self._warned, error.__traceback__ = error.errno, None  # the writer raises it again: it would grow

    def log_scalars(self, step: int, metrics: Mapping[str, float], *, updates: int, env_steps: int = 0) -> None:
        """Write metrics to TensorBoard and, with the clock, as a row of metrics.jsonl.

        A row is `{"step": ..., <metrics>, "clock": {"seconds": ..., "env_steps": ..., "updates": ...}}`. Metrics repeat
        bit for bit with the seed. `seconds` is the wall-clock time of the run so far, over all its processes.

        Args:
            step: agent step; of a pretraining, the update.
            metrics: by TensorBoard tag; what is not finite becomes null in metrics.jsonl.
            updates: made so far.
            env_steps: made so far, agent steps times the action repeat; 0 where there is no environment.
        """
        record = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        seconds = round(self._earlier + time.monotonic() - self._started, 3)
        clock = {"seconds": seconds, "env_steps": env_steps, "updates": updates}
        self._add_scalars(step, metrics)
        with self._warn_on_disk_error():
            self._file.write(json.dumps({"step": step, **record, "clock": clock}) + "\n")

    def has_row(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Whether metrics.jsonl has a row of this step with these values."""
        return any(row["step"] == step and row.items() >= metrics.items() for row in read_rows(self._path)[0])

    def log_matmul_rate(self, step: int, rate: float) -> None:
        """Write the matrix-product rate of the machine, GFLOP/s, at the step where a run begins or resumes."""
        self._add_scalars(step, {"time/matmul_gflops": rate})

    def _add_scalars(self, step: int, metrics: Mapping[str, float]) -> None:
        first = {tag: metrics[name] for name, tag in self._first.items() if name in metrics}
        with self._warn_on_disk_error():
            for name, value in (first | dict(metrics)).items():
                self.writer.add_scalar(name, value, step)

    def log_health(self, step: int, shown: Mapping[str, float]) -> None:
        """Write speed and memory to TensorBoard, and show the progress."""
        seconds = time.monotonic() - self._started
        speed = (step - self._start_step) / max(seconds, 1e-9)
        memory = self._process.memory_info().rss / 2**30
        self._add_scalars(step, {"time/fps": speed, "time/time_elapsed": seconds, "mem/rss_gb": memory})
        self.meter.show(step, {**shown, "memory GB": memory})

    def log_picture(self, step: int, name: str, image: NDArray[np.uint8], tag: str) -> None:
        """Write an image (H, W, 3) as `pictures/<name>-<step>.png`, and for TensorBoard under `tag`."""
        pictures = self._run_dir / "pictures"
        with self._warn_on_disk_error():
            pictures.mkdir(exist_ok=True)
            write_png(image, pictures / f"{name}-{step}.png")
        self.log_image(step, tag, image)

    def log_image(self, step: int, tag: str, image: NDArray[np.uint8]) -> None:
        """Write an image (H, W, 3) for TensorBoard."""
        with self._warn_on_disk_error():
            self.writer.add_image(tag, image, step, dataformats="HWC")

    def log_histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Write the distribution of (N,) values for TensorBoard."""
        with self._warn_on_disk_error():
            self.writer.add_histogram(tag, values, step)

    def log_embedding(
        self, step: int, features: Tensor, images: NDArray[np.uint8], labels: Mapping[str, NDArray[Any]]
    ) -> None:
        """Write points for TensorBoard's projector.

        Args:
            step: of the features.
            features: (N, D).
            images: (N, H, W, 3), a picture of each.
            labels: (N,) each, two or more.
        """
        rows = list(zip(*labels.values(), strict=True))
        shutil.rmtree(self._run_dir / _embedding(step), ignore_errors=True)  # left by a killed process
        sprites = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        with self._warn_on_disk_error():
            self.writer.add_embedding(features, rows, sprites, step, "features", list(labels))

    def has_embedding(self, step: int) -> bool:
        """Whether the projector has all points of that step. The file that lists them is written last."""
        config = self._run_dir / "projector_config.pbtxt"
        return config.is_file() and f'"{_embedding(step)}/' in config.read_text(errors="replace")

    def flush(self) -> None:
        """Write everything buffered to the disk, so that no checkpoint is ahead of the log."""
        with self._warn_on_disk_error():
            try:
                self.writer.flush()
            except OSError:  # its thread has ended: begin a new file
                self.writer = SummaryWriter(str(self._run_dir))
                raise
        with self._warn_on_disk_error():
            self._file.flush()
            self._warned = None


def _embedding(step: int) -> str:
    """The name of TensorBoard's folder for the points of a step."""
    return f"{step:05d}"


def _drop_after(path: Path, step: int) -> float:
    """Remove damaged rows and those after `step` from metrics.jsonl; returns the seconds of the last row left."""
    if not path.exists():
        return 0.0
    lines = path.read_bytes().splitlines()
    rows = [row if row and seconds_of(row) is not None else None for row in map(parse_row, lines)]
    if lost := rows[:-1].count(None):  # the last is torn where a run was killed
        log.warning("%s: %d lines are damaged and dropped", path, lost)
    kept = [i for i, row in enumerate(rows) if row and row["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(lines[i] + b"\n" for i in kept))
    last = rows[kept[-1]] if kept else None
    return seconds_of(last) or 0.0 if last else 0.0
