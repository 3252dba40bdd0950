"""Speed of dm_control's pictures by quality, size and background: `make bench-rendering`.

Pictures per second of CPU time, all threads of the renderer together, of one moment drawn again and again, the
background and the copy to channels-first included; medians of rounds that alternate within a task. Beside them the
simulation alone, at PlaNet's action repeat. Writes results/rendering.json and
the block of its page. Options: rounds=N.
"""

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from common import RESULTS, need_env, options, read_json, table, with_block

from envs import DmcConfig
from envs.dmc import _Copy
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "rendering.json", RESULTS / "rendering.md"
TASKS = {"cartpole": "swingup", "walker": "walk", "cheetah": "run"}
LOOKS = list(product(("fast", "full"), (84, 64)))  # quality, pixels a side
BACKGROUNDS = ("none", "gas")
PICTURES = 4  # a round


def start(domain: str, **settings: Any) -> _Copy:
    """One environment at its first moment."""
    copy = _Copy(DmcConfig(domain=domain, task=TASKS[domain], **settings))
    copy.seed(np.random.SeedSequence(0))
    copy.begin()
    return copy


def rate(work: Callable[[], Any]) -> float:
    """Calls per second of CPU time."""
    begun = time.process_time()
    for _ in range(PICTURES):
        work()
    return PICTURES / (time.process_time() - begun)


def rows(domain: str, rounds: int) -> list[dict[str, Any]]:
    """Rows of the JSON: medians per second of CPU time, one row for each background."""
    works: dict[tuple[Any, ...], Callable[[], Any]] = {}
    for background, (quality, size) in product(BACKGROUNDS, LOOKS):
        copy = start(domain, quality=quality, size=size, background=background)
        works[background, quality, size] = partial(copy.draw, np.empty((3, size, size), np.uint8))
    timed: list[Callable[[], Any]] = [partial(copy.step, np.zeros(copy.action_dim, np.float32)), *works.values()]
    rates = [[rate(work) for work in timed] for _ in range(1 + rounds)]
    steps, *pictures = (statistics.median(column) for column in zip(*rates[1:], strict=True))
    found = dict(zip(works, pictures, strict=True))
    return [
        {
            "task": f"{domain} {TASKS[domain]}",
            "background": name,
            "pictures": [found[name, *look] for look in LOOKS],
            "agent_steps": steps,
        }
        for name in BACKGROUNDS
    ]


def main() -> None:
    """Measure and write the table."""
    given = options(rounds=7)
    need_env(DmcConfig(domain="cartpole", task=TASKS["cartpole"]))
    content = {
        "command": f'make bench-rendering ARGS="{" ".join(sys.argv[1:])}"',
        "options": given,
        "renderer": start("cartpole").screen.renderer,
        "versions": versions("mujoco", "dm-control"),
        "rows": [row for domain in TASKS for row in rows(domain, given["rounds"])],
    }
    write_json(content, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content = read_json(JSON)
    used = content["versions"]
    text = (
        f"`{content['command']}`: medians of {content['options']['rounds']} alternating rounds of {PICTURES}, per "
        f"second of CPU time; drawn by {content['renderer']}, mujoco {used['mujoco']}, "
        f"dm-control {used['dm-control']}.\n\n"
    )
    looks = [f"{quality}, {size} pixels" for quality, size in LOOKS]
    header = ["task", "background", *looks, "simulation alone, agent steps"]
    lines = [
        [row["task"], row["background"], *(f"{rate:.0f}" for rate in [*row["pictures"], row["agent_steps"]])]
        for row in content["rows"]
    ]
    return with_block(page, __file__, text + table(header, lines))


if __name__ == "__main__":
    main()
