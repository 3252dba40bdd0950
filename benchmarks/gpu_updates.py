"""Milliseconds of acting, sampling and learning on a GPU, by where the replay is, precision and compilation.

    python benchmarks/gpu_updates.py [device=cuda] [updates=300]

One torch thread for the launches. The table goes to results/gpu_updates.md.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from common import RESULTS, config_of, options, table

from configs.schema import Config
from envs import Rollout
from experiment.build import build
from harness.process import tune_process
from harness.provenance import versions

STORED, STEPS = "replay.storage=cuda", 400
PONG, CARTPOLE = "experiment=pong_cpu aux=none", "experiment=sac_cartpole agent.random_shift=4"
PAPER = f"{CARTPOLE} batch_size=512 encoder=control agent.hidden=1024 {STORED}"
VARIANTS = [
    PONG,
    f"{PONG} {STORED}",
    f"{PONG} {STORED} agent.precision=bfloat16",
    f"{PONG} {STORED} agent.compile=true",
    f"experiment=pong_cpu {STORED}",
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


def cells(variant: str, device: str, updates: int) -> list[str]:
    """A line of the table."""
    config = config_of("config", [*variant.split(), f"device={device}"], Config)
    parts = build(config)
    env, replay, agent, suite = parts.env, parts.replay, parts.agent, parts.suite
    rollout, explore = Rollout(env, config.frame_stack, config.env.padding), partial(agent.act, explore=True)
    rollout.reset(1)

    def play() -> None:
        replay.add(*rollout.step(explore))

    def sample() -> Any:
        return replay.sample(config.batch_size, suite.reads, 5_000, suite.clip_length)

    def learn() -> None:
        update = agent.update(batch := sample())
        if config.replay.prioritized:
            replay.update_priorities(batch.index, update.td_error)

    times = [milliseconds(play, STEPS)]
    warm = milliseconds(learn, 15) * 15 / 1e3
    times += [milliseconds(learn, updates), milliseconds(sample, updates)]
    env.close()
    return [f"`{variant}`", f"{env.num_envs}", *(f"{value:.1f}" for value in times), f"{warm:.0f}"]


def main() -> None:
    """Measure and write the table."""
    chosen = options(device="cuda", updates=300)
    tune_process(1)
    rows = [cells(variant, chosen["device"], chosen["updates"]) for variant in VARIANTS]
    text = (
        f"# Updates on a GPU\n\n`python benchmarks/gpu_updates.py`: {torch.cuda.get_device_name()}, torch "
        f"{versions()['torch']}, one thread of its machine. Milliseconds; an update includes its sampling, the first "
        "fifteen are left out of it.\n\n"
    )
    header = ["run", "copies", "act and step all copies", "update", "of it sampling", "seconds of the first 15"]
    (RESULTS / "gpu_updates.md").write_text(text + table(header, rows))


if __name__ == "__main__":
    main()
