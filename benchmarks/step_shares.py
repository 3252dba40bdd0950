"""What an agent step of Pong's preset spends its time on, and so what a second thread that steps the games could save.

    python benchmarks/step_shares.py [steps=1000] [precision=bfloat16] [threads=1] [more="agent.head=quantile"]

Milliseconds of CPU time of this process, so that other programs count little. A call within another one is counted
there alone. Prints a table.
"""

import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import torch
from common import config_of, options, table
from dqn_speed import NETWORKS, WARMUP, Stopwatch

import train
from configs.schema import Config
from experiment.training import run as training
from experiment.training.build import Parts, build
from experiment.training.run import Progress, Training
from harness.logger import MetricWindow
from harness.process import tune_process
from harness.signals import GracefulExit


class Shares:
    """Seconds by part, while `counting`."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.open: list[str] = []
        self.since = 0.0
        self.counting = False

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, whose time counts for `part` and not for what calls it."""

        @wraps(function)
        def measured(*arguments: Any, **named: Any) -> Any:
            self.switch()
            self.open.append(part)
            try:
                return function(*arguments, **named)
            finally:
                self.switch()
                self.open.pop()

        return measured

    def switch(self) -> None:
        """Credit the time since the last switch to the innermost open part."""
        now = time.process_time()
        if self.counting:
            self.seconds[self.open[-1] if self.open else "the loop itself"] += now - self.since
        self.since = now


def watched(shares: Shares, parts: Parts) -> list[Any]:
    """The patches that time each part of a step."""
    agent, replay, optimizer = parts.agent, parts.replay, parts.agent.optimizers[0]
    places: dict[str, list[tuple[Any, str]]] = {
        "stepping the games": [(parts.env, "step")],
        "acting": [(parts.rollout, "_explore")],
        "frame stacks": [(parts.rollout, "_observe")],
        "replay: adding": [(replay, "add")],
        "replay: sampling": [(replay, "sample")],
        "replay: priorities": [(replay, "update_priorities")],
        "networks, forward": [(agent, "learn")],
        "networks, backward": [(torch.Tensor, "backward")],
        "gradient norm": [(torch.nn.utils, "clip_grad_norm_")],
        "Adam": [(optimizer, "step"), (optimizer, "zero_grad")],
        "targets and average": [(agent, "update_targets")],
        "metrics": [(MetricWindow, "add"), (MetricWindow, "drain")],
        "schedules": [(agent.schedule, "advance")],
    }
    return [
        patch.object(owner, name, shares.timed(part, getattr(owner, name)))
        for part, owners in places.items()
        for owner, name in owners
    ]


def main() -> None:
    """Measure and print."""
    given = options(steps=1_000, precision="bfloat16", threads=1, more="")
    tune_process(given["threads"])
    words = [f"agent.precision={given['precision']}", f"learning_starts={WARMUP}", "device=cpu", "log_every=200"]
    words += ["diagnose_every=0", f"steps={WARMUP + given['steps']}", *NETWORKS["the preset"], *given["more"].split()]
    config = config_of("config", words, Config)
    parts, shares, watch = build(config), Shares(), Stopwatch(time.process_time)
    patches = watched(shares, parts)
    update = training.update

    def begin(run: Training) -> Any:
        shares.counting = run.progress.updates >= 20  # the first ones allocate
        return update(run)

    with TemporaryDirectory() as folder, GracefulExit() as stop, patch.object(train, "update", begin):
        for each in patches:
            each.start()
        run = Training(config, parts, Progress(), Path(folder), watch)  # type: ignore[arg-type]
        train.learn(run, stop)
    counted = WARMUP + given["steps"] - config.learning_starts - 80
    most = sorted(((seconds / counted * 1e3, part) for part, seconds in shares.seconds.items()), reverse=True)
    total = sum(each for each, _ in most)
    print(table(["part", "ms an agent step", "share"], [[p, f"{ms:.3f}", f"{ms / total:.1%}"] for ms, p in most]))
    print(f"{total:.2f} ms an agent step")


if __name__ == "__main__":
    main()
