"""What an update of each task costs: its time over that of a supervised step with the same encoder and batch.

    python benchmarks/pretext_cost.py [tasks=jigsaw,simclr] [device=cpu]

Image tasks on MNIST and the others on bouncing balls, with the settings of pretext_mnist.py and pretext_video.py.
Writes these rows into results/pretext_cost.json and the page's block; others stay.
"""

import statistics
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from importlib.metadata import version
from itertools import chain
from typing import Any

import pretext_mnist
import pretext_video
import torch
import torch.nn.functional as F
from common import RESULTS, config_of, need, options, origins, read_json, renewed, table, this_command, with_block
from torch import Tensor, nn

from configs.schema import PretrainConfig
from experiment.pretraining.run import PretrainingParts, build_pretraining, draw, update
from harness.process import matmul_rate, tune_process
from harness.provenance import write_json

JSON, PAGE = RESULTS / "pretext_cost.json", RESULTS / "pretext_cost.md"
CLASSES = 10  # of the supervised step
ROUNDS, UPDATES = 15, 3  # rounds that count, steps in each


def words_of(task: str) -> list[str]:
    """The command line of its pretraining."""
    if task in pretext_mnist.TASKS:
        return pretext_mnist.words_of(task, seed=0)
    return pretext_video.words_of("balls", task, seed=0)


def supervised(parts: PretrainingParts, obs: Tensor) -> Callable[[], None]:
    """A training step with cross-entropy of the encoder's copy and a linear classifier on (B, C, H, W) `obs`."""
    encoder = deepcopy(parts.encoder)
    head = nn.Linear(encoder.feature_dim, CLASSES).to(obs.device)
    label = torch.arange(len(obs), device=obs.device) % CLASSES
    optimizer = torch.optim.Adam(chain(encoder.parameters(), head.parameters()), fused=True)

    def step() -> None:
        F.cross_entropy(head(encoder(obs)), label).backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(encoder.parameters(), parts.suite.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()

    return step


def seconds(step: Callable[[], Any], device: torch.device) -> float:
    """Of one call, by a few."""
    start = time.perf_counter()
    for _ in range(UPDATES):
        step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / UPDATES


def measured(task: str, device: str) -> dict[str, Any]:
    """Milliseconds of both in alternating rounds, medians, and the median ratio; drawing the batch is in neither."""
    config = config_of("pretrain", [*words_of(task), f"device={device}"], PretrainConfig)
    tune_process(config.threads)
    parts = build_pretraining(config)
    batch = draw(parts, parts.train, config.batch_size, parts.rng)
    steps = partial(update, parts, batch, 0), supervised(parts, batch.obs)
    rounds = [[seconds(step, batch.obs.device) for step in steps] for _ in range(ROUNDS + 1)][1:]  # the first warms up
    update_ms, supervised_ms = (1e3 * statistics.median(column) for column in zip(*rounds, strict=True))
    ratio = statistics.median(ours / theirs for ours, theirs in rounds)
    return {"task": task, "update_ms": update_ms, "supervised_ms": supervised_ms, "ratio": ratio}


def main() -> None:
    """Measure one after the other and write the table."""
    every = dict.fromkeys([*pretext_mnist.TASKS, *pretext_video.TASKS])
    chosen = options(tasks=",".join(every), device="cpu")
    if pretext_mnist.TASKS.keys() & chosen["tasks"].split(","):
        need("data/mnist", "make mnist")
    tune_process(1)
    command = this_command(__file__)
    made = f"`{command}`, {matmul_rate():.0f} GFLOP/s at float32 1024 x 1024 matrix products, torch {version('torch')}"
    rows = [{"made": made, **measured(name, chosen["device"])} for name in chosen["tasks"].split(",")]
    write_json({"rows": renewed(read_json(JSON).get("rows", []), rows, every)}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    rows = read_json(JSON)["rows"]
    cells = ([r["task"], *(f"{r[k]:.1f}" for k in ("update_ms", "supervised_ms", "ratio"))] for r in rows)
    header = ["task", "ms an update", "ms a supervised step", "ratio"]
    return with_block(page, __file__, f"{origins(rows)}\n{table(header, cells)}")


if __name__ == "__main__":
    main()
