"""What goals cost: sampling with and without hindsight, and updates of SAC with and without a goal.

CPU milliseconds of one thread on the pusher's state, medians of rounds that alternate over the arms, and ratios to the
first arm of the same round. Writes results/goal_speed.json and the block of its page. Options: rounds=N.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from common import RESULTS, config_of, need_env, options, read_json, table, with_block

from configs.schema import Config
from experiment.training.build import Parts, build, build_agent, build_streams
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "goal_speed.json", RESULTS / "goal_speed.md"
STEPS, CALLS, BATCH = 1_000, 20, 256  # of all copies, in a round, transitions
HINDSIGHT = "sampling, four of five goals in hindsight"
SAMPLING = {
    "sampling, goals as pursued": ["replay.relabel.rollout=1", "replay.relabel.future=0"],
    HINDSIGHT: [],
    f"{HINDSIGHT}, windows of three steps": ["replay.n_step=3"],
    f"{HINDSIGHT}, prioritised": ["replay.prioritized=true"],
}


def filled(words: list[str]) -> tuple[Config, Parts]:
    """A training on the pusher with random play in its replay."""
    config: Config = config_of("config", ["experiment=her_pusher", "device=cpu", *words], Config)
    parts = build(config)
    parts.rollout.reset(0)
    for _ in range(STEPS):
        parts.replay.add(*parts.rollout.collect())
    return config, parts


def updates() -> dict[str, Callable[[], Any]]:
    """An update of SAC that sees no goal, and of one that does, on the same batch."""
    config, parts = filled([])
    batch = parts.replay.sample(BATCH, frozenset())
    streams = build_streams(config.seed, torch.device("cpu"))
    plain, _ = build_agent(config, parts.env.frame_shape, parts.env.action_space, streams)
    blind = replace(batch, goal=None)
    return {"update, no goal": partial(plain.update, blind), "update, with a goal": partial(parts.agent.update, batch)}


def milliseconds(function: Callable[[], Any]) -> float:
    """CPU time of a call."""
    begun = time.process_time()
    for _ in range(CALLS):
        function()
    return (time.process_time() - begun) / CALLS * 1e3


def measure(functions: dict[str, Callable[[], Any]], rounds: int) -> list[dict[str, Any]]:
    """A row for each function, with its ratio to the first."""
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):  # the first one warms up
        for name, function in functions.items():
            times[name].append(milliseconds(function))
    first = next(iter(times.values()))[1:]
    return [
        {
            "task": name,
            "ms": statistics.median(found[1:]),
            "ratio": statistics.median(a / b for a, b in zip(found[1:], first, strict=True)),
        }
        for name, found in times.items()
    ]


def render_page(page: str | None) -> str:
    """The page with the table that the JSON gives."""
    rows = read_json(JSON)["rows"]
    cells = [[row["task"], f"{row['ms']:.2f}", f"{row['ratio']:.2f}"] for row in rows]
    return with_block(page, __file__, table(["batch of 256", "CPU ms", "ratio"], cells))


if __name__ == "__main__":
    rounds = options(rounds=15)["rounds"]
    need_env(config_of("config", ["experiment=her_pusher"], Config).env)
    torch.set_num_threads(1)
    sampling = {name: filled(words)[1].replay for name, words in SAMPLING.items()}
    rows = measure({name: partial(r.sample, BATCH, frozenset()) for name, r in sampling.items()}, rounds)
    rows += measure(updates(), rounds)
    write_json({"rows": rows, "rounds": rounds, "versions": versions()}, JSON)
    PAGE.write_text(render_page(PAGE.read_text() if PAGE.is_file() else None))
