"""How often learned policies grasp what a picture shows, and others in the same trays.

    python benchmarks/grasping.py runs/grasping/*/s* [episodes=1000]

Each run is of `experiment=grasp2vec`; its folder is <arm>/s<seed>. Writes results/grasping.json and its block in
results/grasp2vec.md; other runs keep their rows.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import RESULTS, log_of, need_env, read_json, table, this_command, with_block
from grasp2vec import COPIES, SEED, argmax_policy, cell, episodes, load, shares
from numpy.typing import NDArray

from envs import GraspingConfig, GraspingVector, Observation
from envs.grasping_objects import SPLITS
from experiment.goals.space import GOAL_SPACE_FILE, TaskSpace
from experiment.sources.triplets import aim_at_any
from experiment.training.build import load_agent
from harness.process import tune_process
from harness.provenance import versions, write_json
from harness.seeding import numpy_stream

JSON, PAGE = RESULTS / "grasping.json", RESULTS / "grasp2vec.md"
SPACE = "zoo/grasp2vec"  # of the argmax policy
NAMES = ("instance", "any")


def measure(run: Path, count: int) -> dict[str, Any]:
    """What the policy of a run grasps, by split."""
    config, agent = load_agent(run)
    space = TaskSpace.load(run / GOAL_SPACE_FILE, torch.device("cpu"))

    def aim(env: GraspingVector, scene: NDArray[np.uint8]) -> NDArray[Any]:
        return agent.act(Observation(scene, space.embed(env.goal_frame(), scene)), explore=False)

    assert isinstance(config.env, GraspingConfig)
    last = log_of(run)[-1]
    made = {"steps": last["step"], "seconds": last["clock"]["seconds"], "config": (run / "config.yaml").read_text()}
    return made | {split: shares(episodes(split, count, aim, config.env.grid)) for split in SPLITS}


def others(count: int) -> dict[str, dict[str, Any]]:
    """What needs no policy to be learned, in the same trays."""
    argmax, rng = argmax_policy(load(SPACE)), numpy_stream(SEED, "baselines")
    aims = {
        "argmax of the heatmap": lambda env, scene: argmax(scene, env.goal_frame()),
        "any object": lambda env, _: aim_at_any(env, rng),
        "random places": lambda *_: rng.uniform(-1, 1, (COPIES, 2)).astype(np.float32),
    }
    return {name: {split: shares(episodes(split, count, aim)) for split in SPLITS} for name, aim in aims.items()}


def render_page(page: str) -> str:
    """The page with the block that the JSON gives."""
    content = read_json(JSON)
    arms = {name: list(seeds.values()) for name, seeds in sorted(content["arms"].items())}
    arms |= {name: [found] for name, found in content["others"].items()}
    header = ["", "seeds", "agent steps", "minutes", *(f"{split}: {name}" for split in SPLITS for name in NAMES)]
    rows = []
    for name, found in arms.items():
        runs = [f"{len(found)}", f"{found[0]['steps']:,}"] if "steps" in found[0] else ["", ""]
        minutes = f"{np.mean([one['seconds'] for one in found]) / 60:.0f}" if "steps" in found[0] else ""
        measured = [cell([one[split][key] for one in found]) for split in SPLITS for key in NAMES]
        rows.append([name, *runs, minutes, *measured])
    head = f"`{content['command']}`, percent of {content['episodes']:,} grasps, torch {content['versions']['torch']}."
    return with_block(page, __file__, f"{head}\n\n{table(header, rows)}")


def main() -> None:
    """Measure the runs of the command line."""
    need_env(GraspingConfig())
    tune_process(1)
    counts = [int(word.partition("=")[2]) for word in sys.argv[1:] if word.startswith("episodes=")]
    count, kept = (counts or [1_000])[-1], read_json(JSON)
    arms = kept.get("arms", {}) if kept.get("episodes") == count else {}
    for run in (Path(word) for word in sys.argv[1:] if not word.startswith("episodes=")):
        arms.setdefault(run.parent.name, {})[run.name] = measure(run, count)
    made = {"command": this_command(__file__), "episodes": count, "versions": versions("mujoco")}
    write_json({"arms": arms, "others": others(count), **made}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))
    print(PAGE.read_text().partition(Path(__file__).name)[2].partition("<!-- end")[0])


if __name__ == "__main__":
    main()
