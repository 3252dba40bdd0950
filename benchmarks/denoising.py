"""Which auxiliary task takes the background out of an encoder? Denoising factors after learning from recorded play.

    python benchmarks/denoising.py [world=cartpole_swingup] [background=gas|noise|video] [arms=none,self_prediction,...]
                                   [encoders=separate,shared] [seeds=3] [steps=1500] [frames=10000] [jobs=1]
    python benchmarks/denoising.py render=1

Each cell trains an encoder on the same recorded random play: `separate` by the task alone, `shared` by the task and
SAC's critics, from the same weights. Cells in results/denoising-<world>-<background>.json with the same `steps` and
`frames`, and those in runs/denoising, are done; the others run. Then that file and the block of results/denoising.md
are written; `render=1` writes that block alone. An arm is a task, one of `ARMS`, or `state_labels`: regression of the
simulator's state, a reference that no self-supervised task has. The batch of 128, the encoder and all settings are
those of `experiment=sac_cartpole`. `background=video` shows the videos of `make backgrounds`.
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from common import (
    RESULT,
    RESULTS,
    config_of,
    finish,
    made_on,
    mean_cell,
    need,
    need_env,
    options,
    read_json,
    result_of,
    side_by_side,
    standardized_state,
    table,
    this_command,
    with_block,
    write_page,
)
from gymnasium.spaces import Box
from torch import Tensor, nn

from agents import Agent
from analysis.denoising import raw_pixels
from aux_tasks import TASKS, AuxOutput, AuxSuite, AuxTask, TaskSetting
from configs.schema import Config
from configs.sources import FramesConfig
from datasets import EpisodeSampler
from encoders import Encoder
from experiment.probing.build import build_denoising
from experiment.sources.build import build_source
from experiment.training.build import build_agent, build_streams
from harness.process import tune_process
from harness.provenance import versions, write_json
from harness.seeding import numpy_stream
from replay import Batch

RUNS, PAGE = Path("runs/denoising"), RESULTS / "denoising.md"
NORMED = ["aux=dbc", "aux.dbc.options.form=normed", "aux.dbc.options.pairs=all"]
ARMS = {
    "none": ["aux=none"],
    "dbc_normed": NORMED,
    "dbc_normed_reward": [*NORMED, "aux.dbc.options.reward_weight=1000"],
    "dbc_rap": ["aux=dbc", "aux.dbc.options.form=rap"],
    "deepmdp_reward": ["aux=deepmdp", "aux.deepmdp.options.reward_weight=1000"],
}
PLAIN = "self_prediction,deepmdp,dbc,dbc_simsr,dbc_mico,curl,soda,reconstruction,inverse_dynamics,state_labels"
DEFAULT = f"{','.join(ARMS)},{PLAIN}"
SCORES = ("seen", "unseen", "state_r2", "background_r2")
READ = frozenset({"obs", "action", "reward", "next_obs"})  # by the critics


class StateLabels(AuxTask):
    """Regression of the simulator's state from features: a reference for what can be learned from these frames."""

    reads: ClassVar[frozenset[str]] = frozenset({"features", "index"})
    labels: ClassVar[Tensor]  # (N, D) of all frames

    def __init__(self, setting: TaskSetting) -> None:
        super().__init__(setting)
        self.head = nn.Linear(setting.feature_dim, self.labels.shape[1])

    def loss(self, batch: Batch, features: Tensor, encoder: Encoder) -> AuxOutput:  # noqa: ARG002
        """Return the mean squared error (B,)."""
        return AuxOutput((self.head(features) - self.labels[batch.index]).square().mean(1))


def config(arm: str, seed: int, given: dict[str, Any]) -> Config:
    """What the cells of an arm train."""
    domain, _, task = given["world"].rpartition("_")
    words = ["experiment=sac_cartpole", f"env.domain={domain}", f"env.task={task}"]
    words += [f"env.background={given['background']}"]
    words += ["env.background_folder=data/backgrounds"] if given["background"] == "video" else []
    words += [*ARMS.get(arm, [f"aux={arm}"]), f"seed={seed}", "device=cpu", "threads=1"]
    return config_of("config", words, Config)  # type: ignore[no-any-return]


def world_of(given: dict[str, Any]) -> Path:
    """Where the results of all cells lie that can be compared."""
    videos = given["files"].get("sha256", "")[:8]
    return RUNS / f"{given['world']}-{given['background']}{videos}-{given['frames']}-{given['steps']}"


def folder_of(arm: str, encoder: str, seed: int, given: dict[str, Any]) -> Path:
    """Where the result of a cell lies."""
    return world_of(given) / encoder / arm / f"s{seed}"


def name_of(cell: dict[str, Any]) -> tuple[str, str, int]:
    """What tells a cell from others of its world."""
    return cell["arm"], cell["encoder"], cell["seed"]


def run(arm: str, encoder: str, seed: int, given: dict[str, Any]) -> None:
    """Train and score the encoder of one cell."""
    tune_process(1)
    TASKS["state_labels"] = StateLabels  # in the process of this cell alone
    start, of = time.perf_counter(), config(arm, seed, given)
    episodes = build_source(FramesConfig(frames=given["frames"]), of.env, seed=0)
    StateLabels.labels = standardized_state(episodes)
    device = torch.device("cpu")
    sampler = EpisodeSampler(episodes, frame_stack=of.frame_stack, grayscale=False, device=device)
    space = Box(-1, 1, (sampler.actions[1],), np.float32)
    agent, suite = build_agent(of, sampler.obs_shape, space, build_streams(seed, device))
    test = build_denoising(of.env, agent.encoder, of.frame_stack)
    assert test is not None
    result = {"initial": test(agent.encoder)}
    if (arm, encoder, seed) == ("none", "shared", 0):
        result["pixels"] = test(raw_pixels)
    rng = numpy_stream(seed, "replay")
    for step in range(given["steps"]):
        batch = sampler.sample(of.batch_size, suite.reads | READ, suite.clip_length, rng)
        discount = torch.full_like(batch.reward, of.gamma)
        assert batch.next_obs is not None
        whole = replace(batch, nstep_reward=batch.reward, nstep_obs=batch.next_obs, discount=discount)
        agent.schedule.advance(step)
        update(agent, suite, whole, encoder)
    result |= {"trained": test(agent.encoder)}
    seconds = time.perf_counter() - start
    folder = folder_of(arm, encoder, seed, given)
    folder.mkdir(parents=True, exist_ok=True)
    cell = {"arm": arm, "encoder": encoder, "seed": seed, "command": given["command"], "steps": given["steps"]}
    write_json(cell | result | {"seconds": seconds, "versions": versions()}, folder / RESULT)


def update(agent: Agent, suite: AuxSuite, batch: Batch, encoder: str) -> None:
    """Train the encoder by the critics and the task, or by the task alone."""
    if encoder == "shared":
        agent.update(batch)
        return
    terms, _ = suite.losses(batch, agent.encoder(batch.obs), agent.encoder)
    agent.descend(terms, agent.weights, batch.weight)
    suite.after_step(batch, agent.encoder)


def rows_of(content: dict[str, Any]) -> list[list[str]]:
    """The lines of a table: the baselines, then each arm and encoder, mean and half of the 95 % interval over seeds."""

    def line(*names: str, scores: list[dict[str, float]]) -> list[str]:
        return [*names, *(mean_cell([score[name] for score in scores], 2) for name in SCORES)]

    cells = content["cells"]
    lines = [line("pixels", "", scores=[cell["pixels"]]) for cell in cells if "pixels" in cell]
    untrained = {cell["seed"]: cell["initial"] for cell in cells}
    lines.append(line("untrained encoder", "", scores=list(untrained.values())))
    for arm, encoder in dict.fromkeys((cell["arm"], cell["encoder"]) for cell in cells):
        of = [cell["trained"] for cell in cells if (cell["arm"], cell["encoder"]) == (arm, encoder)]
        lines.append(line(arm, encoder, scores=of))
    return lines


def render_page(page: str, folder: Path = RESULTS) -> str:
    """The page with the block that the kept JSON gives."""
    text = ""
    for path in sorted(folder.glob("denoising-*.json")):
        content = read_json(path)
        cells = content["cells"]
        seeds, seconds = len({cell["seed"] for cell in cells}), sorted(cell["seconds"] for cell in cells)
        text += f"### {content['world']}, background `{content['background']}`\n\n{content['steps']:,} updates on "
        text += f"{content['frames']:,} frames, {seeds} seed(s), {seconds[len(seconds) // 2]:.0f} s a cell, torch "
        text += f"{made_on(cells)}, [JSON]({path.name}):\n\n"
        text += "".join(f"    {command}\n" for command in dict.fromkeys(cell["command"] for cell in cells)) + "\n"
        text += table(["arm", "encoder", *SCORES], rows_of(content)) + "\n"
    return with_block(page, __file__, text)


def main() -> None:
    """Run what is missing, and write JSON and page."""
    given = options(
        world="cartpole_swingup", background="gas", arms=DEFAULT, encoders="separate,shared", seeds=3, steps=1_500,
        frames=10_000, jobs=1, render=0,
    )  # fmt: skip
    given["command"] = this_command(__file__)
    if not given["render"]:
        of = config("none", 0, given)
        if given["background"] == "video":
            need("data/backgrounds", "make backgrounds")
        given["files"] = of.env.files()
        need_env(of.env)  # it chooses the renderer, on which a process that is spawned relies
        build_source(FramesConfig(frames=given["frames"]), of.env, seed=0)  # or all cells would record at once
        each = [
            (arm, encoder, seed, given)
            for seed in range(given["seeds"])
            for encoder in given["encoders"].split(",")
            for arm in given["arms"].split(",")
            if (arm, encoder) != ("none", "separate")  # nothing trains it
        ]
        path = RESULTS / f"denoising-{given['world']}-{given['background']}.json"
        content, kept = {key: given[key] for key in ("world", "background", "steps", "frames")}, read_json(path)
        content |= {"files": given["files"]} if given["files"] else {}
        comparable = all(kept.get(key) == value for key, value in content.items())
        cells = {name_of(cell): cell for cell in (kept["cells"] if comparable else [])}
        missing = [one for one in each if one[:3] not in cells and not result_of(folder_of(*one), given["steps"])]
        finish(side_by_side(run, missing, given["jobs"]))
        found = [read_json(path) for path in world_of(given).glob(f"*/*/*/{RESULT}")]
        cells |= {name_of(cell): cell for cell in found}
        write_json(content | {"cells": [cells[name] for name in sorted(cells)]}, path)
    write_page(PAGE, __file__, render_page)


if __name__ == "__main__":
    main()
