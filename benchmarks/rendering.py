"""Speed of dm_control's pictures by quality, size and background: `make bench-rendering`.

Pictures per second of CPU time, all threads of the renderer together, of one moment drawn again and again, the
background and the copy to channels-first included; medians of rounds that alternate within a task. Beside them the
simulation alone, at PlaNet's action repeat. The table goes to results/rendering.md. Options: rounds=N.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from envs import DmcConfig
from envs.dmc import _Copy
from envs.rendering import choose_backend

RESULTS = Path(__file__).parent.parent / "results"
TASKS = {"cartpole": "swingup", "walker": "walk", "cheetah": "run"}
LOOKS = list(product(("fast", "full"), (84, 64)))  # quality, pixels a side
BACKGROUNDS = ("none", "gas")
PICTURES = 4  # a round


def start(domain: str, **options: Any) -> _Copy:
    """One environment at its first moment."""
    copy = _Copy(DmcConfig(domain=domain, task=TASKS[domain], **options))
    copy.seed(np.random.SeedSequence(0))
    copy.begin()
    return copy


def rate(work: Callable[[], Any]) -> float:
    """Calls per second of CPU time."""
    begun = time.process_time()
    for _ in range(PICTURES):
        work()
    return PICTURES / (time.process_time() - begun)


def rows(domain: str, rounds: int) -> list[str]:
    """Lines of the table."""
    works: dict[tuple[Any, ...], Callable[[], Any]] = {}
    for background, (quality, size) in product(BACKGROUNDS, LOOKS):
        copy = start(domain, quality=quality, size=size, background=background)
        works[background, quality, size] = partial(copy.draw, np.empty((3, size, size), np.uint8))
    timed: list[Callable[[], Any]] = [partial(copy.step, np.zeros(copy.action_dim, np.float32)), *works.values()]
    rates = [[rate(work) for work in timed] for _ in range(1 + rounds)]
    steps, *pictures = (f"{statistics.median(column):.0f}" for column in zip(*rates[1:], strict=True))
    cells = dict(zip(works, pictures, strict=True))
    return [
        f"| {domain} {TASKS[domain]} | {name} | {' | '.join(cells[name, *look] for look in LOOKS)} | {steps} |"
        for name in BACKGROUNDS
    ]


def main(argv: list[str]) -> None:
    """Measure and write the table."""
    options = {"rounds": 7} | {k: int(v) for k, _, v in (word.partition("=") for word in argv)}
    choose_backend()
    looks = " | ".join(f"{quality}, {size} pixels" for quality, size in LOOKS)
    lines = [
        "# Pictures of dm_control",
        "",
        f'`make bench-rendering ARGS="{" ".join(argv)}"`: medians of {options["rounds"]} alternating rounds of '
        f"{PICTURES}, per second of CPU time; drawn by {start('cartpole').screen.renderer}, "
        f"mujoco {version('mujoco')}, dm-control {version('dm-control')}.",
        "",
        f"| task | background | {looks} | simulation alone, agent steps |",
        "|---" * (len(LOOKS) + 3) + "|",
        *(line for domain in TASKS for line in rows(domain, options["rounds"])),
    ]
    text = "\n".join(lines) + "\n"
    (RESULTS / "rendering.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
