"""Milliseconds of acting, sampling and learning on a GPU, by where the replay is, precision and compilation.

    python benchmarks/gpu_updates.py [device=cuda] [updates=300]

One torch thread for the launches. Writes results/gpu_updates.json and the block of its page.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import RESULTS, config_of, options, read_json, table, with_block

from configs.schema import Config
from envs import Rollout
from experiment.build import build
from harness.process import tune_process
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "gpu_updates.json", RESULTS / "gpu_updates.md"
STORED, STEPS = "replay.storage=cuda", 400
PONG, CARTPOLE = "experiment=pong_cpu aux=none", "experiment=sac_cartpole agent.random_shift=4"
PAPER = f"{CARTPOLE} batch_size=512 encoder=control agent.hidden=1024 {STORED}"
VARIANTS = [
    PONG,
    f"{PONG} {STORED}",
    f"{PONG} {STORED} agent.precision=bfloat16",
    f"{PONG} {STORED} agent.compile=true",
    f"experiment=pong_cpu aux=permutation encoder.standardize=true {STORED}",
    f"{PONG} encoder=nature {STORED}",
    CARTPOLE,
    f"{CARTPOLE} {STORED} agent.compile=true",
    PAPER,
    f"{PAPER} agent.precision=bfloat16",
    "experiment=dbc_cartpole",
]


def milliseconds(work: Callable[[], Any], repeats: int) -> float:
    """Mean wall-clock time of a call, all of them finished on the device."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        work()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - start) / repeats


def measured(variant: str, device: str, updates: int) -> dict[str, Any]:
    """A row of the JSON: milliseconds of acting, learning and sampling, and seconds of the first 15 updates."""
    config = config_of("config", [*variant.split(), f"device={device}"], Config)
    parts = build(config)
    env, replay, agent, suite = parts.env, parts.replay, parts.agent, parts.suite
    rollout = Rollout(env, config.frame_stack, config.env.padding)
    rollout.reset(1)

    def play() -> None:
        replay.add(*rollout.step(partial(agent.act, explore=True)))

    replay.advance(5_000)

    def sample() -> Any:
        return replay.sample(config.batch_size, suite.reads, suite.clip_length)

    def learn() -> None:
        update = agent.update(batch := sample())
        if config.replay.prioritized:
            replay.update_priorities(batch.index, update.td_error)

    times = [milliseconds(play, STEPS)]
    warm = milliseconds(learn, 15) * 15 / 1e3
    times += [milliseconds(learn, updates), milliseconds(sample, updates)]
    env.close()
    return {"run": variant, "copies": env.num_envs, "milliseconds": times, "warm_seconds": warm}


def main() -> None:
    """Measure and write the table."""
    chosen = options(device="cuda", updates=300)
    tune_process(1)
    rows = [measured(variant, chosen["device"], chosen["updates"]) for variant in VARIANTS]
    write_json({"device": torch.cuda.get_device_name(), "versions": versions(), "rows": rows}, JSON)
    PAGE.write_text(remade(PAGE.read_text()))


def remade(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content = read_json(JSON)
    text = f"`python benchmarks/gpu_updates.py`: {content['device']}, torch {content['versions']['torch']}.\n\n"
    header = ["run", "copies", "act and step all copies", "update", "of it sampling", "seconds of the first 15"]
    lines = [
        [f"`{r['run']}`", f"{r['copies']}", *(f"{v:.1f}" for v in r["milliseconds"]), f"{r['warm_seconds']:.1f}"]
        for r in content["rows"]
    ]
    return with_block(page, __file__, text + table(header, lines))


if __name__ == "__main__":
    main()
