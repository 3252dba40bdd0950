"""Where a run's numbers go: TensorBoard, metrics.jsonl, and one line of progress."""

import json
import logging
import math
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter, summary

from harness.process import replacing

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """A logged tensor was NaN or infinite."""


class MetricWindow:
    """Scalars of the updates since the last log, kept as tensors so that no update waits for the device."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._steps: dict[str, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._values)

    def add(self, step: int, metrics: Mapping[str, Tensor]) -> None:
        """Remember the scalars of one update."""
        for name, value in metrics.items():
            self._values.setdefault(name, []).append(value)
            self._steps.setdefault(name, []).append(step)

    def drain(self) -> dict[str, float]:
        """The mean of each scalar; the window is empty afterwards.

        Raises:
            NonFiniteError: names the tensor that was not finite first, and its step.
        """
        stacked = {name: torch.stack(values) for name, values in self._values.items()}
        bad = [
            (self._steps[name][i], name, float(values[i]))
            for name, values in stacked.items()
            for i in (~values.isfinite()).nonzero().flatten().tolist()
        ]
        if bad:
            step, name, value = min(bad, key=lambda found: found[0])
            raise NonFiniteError(f"{name} is {value} at step {step}")
        self._values, self._steps = {}, {}
        return {name: float(values.mean()) for name, values in stacked.items()}


class RunLogger:
    """TensorBoard and metrics.jsonl in `run_dir`, continued behind `step` without duplicates.

    What the disk does not take is missing there, with one warning, and the run goes on.

    Args:
        run_dir: folder of the run.
        step: agent step that the run continues from; later records are dropped.
        total: agent steps of the whole run, for the time left.
        tasks: names of the auxiliary tasks, for the overlaid charts.
    """

    def __init__(self, run_dir: Path, *, step: int, total: int, tasks: Iterable[str]) -> None:
        self.total, self._start_step, self._started = total, step, time.monotonic()
        self._path, self._pictures = run_dir / "metrics.jsonl", run_dir / "pictures"
        _drop_after(self._path, step)
        self._file = self._path.open("a", buffering=1)  # line by line, for whoever watches
        new = not any(run_dir.glob("events.out.tfevents.*"))
        self.writer = SummaryWriter(str(run_dir), purge_step=step + 1 if step else 0)
        if new:  # once: purging does not reach it
            self.writer.add_custom_scalars(_layout(tasks))
            self.writer.flush()
        self._console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)
        self._process = psutil.Process()
        self._trouble: int | None = None  # the last that was told

    def __enter__(self) -> "RunLogger":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()
        for file in (self.writer, self._file):
            with self._going_on():
                file.close()

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno != self._trouble:
                log.warning("the log will have gaps: %s", error)
            self._trouble, error.__traceback__ = error.errno, None  # the writer repeats it: it would grow

    def scalars(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write metrics of the learning; what repeats bit for bit goes to metrics.jsonl as well."""
        record = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        with self._going_on():
            self._file.write(json.dumps({"step": step, **record}) + "\n")
        self._add_scalars(step, metrics)

    def machine(self, step: int, rate: float) -> None:
        """Write the matrix-product rate of the machine, GFLOP/s, where a run begins or continues."""
        self._add_scalars(step, {"time/matmul_gflops": rate})

    def _add_scalars(self, step: int, metrics: Mapping[str, float]) -> None:
        with self._going_on():
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)

    def health(self, step: int, shown: Mapping[str, float]) -> None:
        """Write speed and memory, which no two runs share, and show the progress line."""
        seconds = time.monotonic() - self._started
        speed = (step - self._start_step) / max(seconds, 1e-9)
        memory = self._process.memory_info().rss / 2**30
        self._add_scalars(step, {"time/fps": speed, "time/time_elapsed": seconds, "mem/rss_gb": memory})
        left = (self.total - step) / max(speed, 1e-9) / 60
        line = (
            f"step {step:,}/{self.total:,}  {speed:.0f} steps/s  {left:.0f} min left  "
            + "".join(f"{name} {_short(value)}  " for name, value in shown.items())
            + f"{memory:.1f} GB"  # last: a narrow terminal cuts it first
        )
        # A terminal overwrites the line, all of it; a file or a pipe gets one line per call.
        terminal = self._console.is_terminal
        with self._going_on():  # it may be a file
            self._console.print(
                line.ljust(self._console.width) if terminal else line,
                end="\r" if terminal else "\n",
                highlight=False,
                overflow="ellipsis",
                no_wrap=True,
                soft_wrap=False,
            )

    def image(self, step: int, task: str, image: NDArray[np.uint8]) -> None:
        """Write what a task sees, (H, W, 3): `aux/<task>/inputs` for TensorBoard and `pictures/<task>-<step>.png`."""
        with self._going_on():
            self._pictures.mkdir(exist_ok=True)
            Image.fromarray(image).save(self._pictures / f"{task}-{step}.png")
        self.picture(step, f"aux/{task}/inputs", image)

    def picture(self, step: int, tag: str, image: NDArray[np.uint8]) -> None:
        """Write an image (H, W, 3) for TensorBoard."""
        with self._going_on():
            self.writer.add_image(tag, image, step, dataformats="HWC")

    def histogram(self, step: int, tag: str, values: Tensor) -> None:
        """Write how the (N,) values are distributed, for TensorBoard."""
        with self._going_on():
            self.writer.add_histogram(tag, values, step)

    def embedding(
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
        sprites = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        with self._going_on():
            self.writer.add_embedding(features, rows, sprites, step, "features", list(labels))

    def hparams(self, hparams: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Write the run's line in the table of hyperparameters; the scores in it are the scalars of these names."""
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in hparams.items()}
        # add_hparams would log the scores again, at step 0
        with self._going_on():
            for part in summary.hparams(plain, dict(metrics)):  # type: ignore[no-untyped-call]
                self.writer._get_file_writer().add_summary(part)  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        """Hand everything to the disk, so that a checkpoint never knows more than the log."""
        with self._going_on():
            try:
                self.writer.flush()
            except OSError:  # for good: its thread is dead; now that the disk takes bytes, a new file is begun
                self.writer.all_writers = None
                raise
        with self._going_on():
            self._file.flush()
            self._trouble = None


def shown_losses(metrics: Mapping[str, float]) -> dict[str, float]:
    """`train/loss` and the loss of each side quest, under at most eight letters of its name: for the progress line."""
    tasks = {tag.split("/")[1]: loss for tag, loss in metrics.items() if re.fullmatch("aux/[^/]*/loss", tag)}
    return {"loss": metrics["train/loss"]} | {name[:8]: loss for name, loss in tasks.items()}


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _drop_after(path: Path, step: int) -> None:
    """Remove records behind `step`, and a torn last line, from metrics.jsonl."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError):
            break
    with replacing(path) as temporary:
        temporary.write_text("".join(kept))


def _layout(tasks: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """Charts that overlay the auxiliary tasks; TensorBoard overlays the runs."""
    names = list(tasks)
    charts: dict[str, dict[str, list[Any]]] = {
        "Score": {"game score": ["Multiline", ["rollout/score", "eval/mean_reward"]]},
        "Representation": {tag: ["Multiline", [f"repr/{tag}"]] for tag in ("effective_rank", "feature_std")},
    }
    if names:
        charts["Auxiliary tasks"] = {
            tag: ["Multiline", [f"aux/{name}/{tag}" for name in names]] for tag in ("loss", "accuracy", "grad_cosine")
        }
    return charts
