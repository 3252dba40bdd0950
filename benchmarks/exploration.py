"""Who finds a treasure that random actions hardly ever find?

    python benchmarks/exploration.py [seeds=5] [steps=10000] [jobs=1]

DQN in the deep sea (`experiment=deep_sea`), with and without an exploration bonus of weight 1. `exact counts` is a
bonus of 1 / sqrt(1 + n) for an action drawn n times in its cell: the bonus of one-hot features of cell and action.
Makes what is missing in runs/exploration, then results/exploration.json and the block of its page.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import torch
from common import (
    RESULT,
    RESULTS,
    config_of,
    finish,
    games,
    measured,
    options,
    read_json,
    table,
    this_command,
    with_block,
)
from scipy.stats import binomtest
from torch import Tensor

from aux_tasks import TASKS, AuxOutput, TaskSetting
from aux_tasks.base import BonusTask
from configs.schema import Config
from encoders import Encoder
from harness.provenance import versions, write_json
from replay import Batch
from train import train

JSON, PAGE = RESULTS / "exploration.json", RESULTS / "exploration.md"
RUNS = Path("runs/exploration")
WEIGHT = 1.0
ARMS = {
    "epsilon-greedy": "none",
    "contrastive UCB": "contrastive_ucb",
    "forward-model error": "self_prediction",
    "DBC model error": "dbc",
    "exact counts": "counts",
}
MOVES = 12  # steps of an episode, that of the reset included


class Counts(BonusTask):
    """A bonus by exact counts of where the diver is and what it does; nothing to learn."""

    reads: ClassVar[frozenset[str]] = frozenset({"obs", "action"})

    def __init__(self, setting: TaskSetting) -> None:
        super().__init__(setting)
        _, height, width = setting.obs_shape
        self.register_buffer("counts", torch.zeros(height * width, setting.action_dim))

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return zeros."""
        return AuxOutput(torch.zeros_like(batch.reward))

    def bonus(self, batch: Batch, features: Tensor, encoder: Encoder) -> Tensor:  # noqa: ARG002
        """Return 1 / sqrt(1 + n) (B,)."""
        return (1 + self.get_buffer("counts")[self._place(batch), batch.action]).rsqrt()

    def count(self, batch: Batch, encoder: Encoder) -> None:  # noqa: ARG002
        """Count."""
        one = torch.ones_like(batch.reward)
        self.get_buffer("counts").index_put_((self._place(batch), batch.action), one, accumulate=True)

    def _place(self, batch: Batch) -> Tensor:
        return batch.obs[:, -1].flatten(1).argmax(1)


def folder(arm: str, seed: int) -> Path:
    """The run's folder."""
    return RUNS / f"{arm.replace(' ', '_')}-s{seed}"


def run(arm: str, seed: int, given: dict[str, Any]) -> None:
    """Train and measure."""
    TASKS["counts"] = Counts
    task, path = ARMS[arm], folder(arm, seed)
    words = ["experiment=deep_sea", f"aux={task}", f"steps={given['steps']}", f"seed={seed}", f"run_dir={path}"]
    words += [f"aux.{task}.bonus_weight={WEIGHT}"] * (task != "none")
    if code := train(config_of("config", [*words, "log_every=96", "threads=1", "device=cpu"], Config)):
        sys.exit(code)
    found = [step for step, score, _ in games(path) if score > 0]  # steps to the right alone cost
    content = {"steps": given["steps"], "arm": arm, "seed": seed, "found": found[0] if found else None}
    content |= {"score": json.loads((path / "report.json").read_text())["summary"]["mean"]}
    write_json(content | {"seconds": round(time.process_time(), 1)}, path / RESULT)


def render_page(page: str) -> str:
    """The page with the block that the JSON gives."""
    content = read_json(JSON)
    by_arm = {arm: [result for result in content["results"] if result["arm"] == arm] for arm in ARMS}
    rows = [cells(arm, found, content) for arm, found in by_arm.items() if found]
    text = f"`{content['command']}`: {content['steps']:,} agent steps, torch {content['versions']['torch']}.\n\n"
    header = ["exploration", "episodes until found, of each seed", "solved", "95 % interval", "CPU time"]
    return with_block(page, __file__, text + table(header, rows))


def cells(arm: str, found: list[dict[str, Any]], content: dict[str, Any]) -> list[str]:
    """A line of the table."""
    base = [result["seconds"] for result in content["results"] if result["arm"] == "epsilon-greedy"]
    episodes = ["-" if one["found"] is None else f"{one['found'] // MOVES}" for one in found]
    solved = sum(one["score"] > 0.5 for one in found)
    low, high = binomtest(solved, len(found)).proportion_ci(method="wilson")
    ratio = statistics.mean(one["seconds"] for one in found) / statistics.mean(base)
    return [arm, ", ".join(episodes), f"{solved} of {len(found)}", f"{low:.2f} to {high:.2f}", f"{ratio:.2f}"]


def main() -> None:
    """Run what is missing and write the table."""
    given = options(seeds=5, steps=10_000, jobs=1)
    runs = {folder(arm, seed): (arm, seed, given) for seed in range(given["seeds"]) for arm in ARMS}
    results, failed = measured(run, runs, given["steps"], given["jobs"])
    content = {
        "command": this_command(__file__),
        "steps": given["steps"],
        "results": list(results.values()),
        "versions": versions(),
    }
    write_json(content, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))
    finish(failed)


if __name__ == "__main__":
    main()
