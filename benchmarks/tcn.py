"""Do time-contrastive embeddings find a moment again that another camera saw?

    python benchmarks/tcn.py [world=pointmass] [tasks=tcn,mftcn,single_view_tcn] [seeds=3] [steps=500] [jobs=1]

Records a world once, by the cameras of its preset and one more, from which nothing learns; pretrains what is missing in
runs/tcn; writes the world's part of results/tcn.json, the block of results/tcn.md and the world's picture. Seeds differ
in weights, batches and held-out episodes. After each run, alignment errors and ridge probes of the held-out episodes,
beside the same networks untrained, and pixels. Worlds: pointmass, whose actions are forces; reacher of dm_control.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import (
    RESULT,
    RESULTS,
    config_of,
    finish,
    measured,
    need_env,
    options,
    read_json,
    table,
    this_command,
    with_block,
)
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from analysis.alignment import alignment_error, nearest_moments
from analysis.probes import RIDGE_ALPHAS, comparable
from aux_tasks.goals.base import GoalTask
from aux_tasks.goals.mftcn import MultiFrameTCN
from configs.schema import PretrainConfig
from configs.sources import SourceConfig
from datasets import Episodes
from encoders import fit_moments
from experiment.pretraining.run import PretrainingParts, build_pretraining, draw, held_out_metrics, update
from experiment.sources.build import build_source
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "tcn.json", RESULTS / "tcn.md"
RUNS = Path("runs/tcn")
PROBED = 2_000  # frames that a ridge probe is fitted to
Embed = Callable[[Episodes, int, slice], NDArray[np.floating]]  # of a view of some frames of an episode


class World(NamedTuple):
    """What is recorded, and which labels tell its state."""

    words: list[str]
    unseen: str  # a camera
    positions: list[str]
    velocities: list[str]
    angles: bool  # the positions are radians


WORLDS = {
    "pointmass": World(
        ["experiment=pretrain_tcn_pointmass", "env.control=force"],
        "mirrored",
        ["x", "y"],
        ["velocity_x", "velocity_y"],
        angles=False,
    ),
    "reacher": World(
        ["experiment=pretrain_tcn"], "45/-60", ["position_0", "position_1"], ["velocity_0", "velocity_1"], angles=True
    ),
}


@dataclass(frozen=True)
class Recorded(SourceConfig):
    """One recording for all seeds, without its last camera."""

    name: str = field(default="recorded", kw_only=True)
    world: str = ""

    def read(self, seed: int) -> Episodes:  # noqa: ARG002
        """See `SourceConfig.read`."""
        episodes = recording(self.world)
        assert episodes.views is not None
        return replace(episodes, views=episodes.views[:, :-1])


def recording(world: str) -> Episodes:
    """What all cameras saw."""
    config = pretraining(world, "tcn", 0, 1)
    env: Any = config.env
    return build_source(config.source, replace(env, views=[*env.views, WORLDS[world].unseen]), 0)


def pretraining(world: str, task: str, seed: int, steps: int) -> PretrainConfig:
    """The run of a task."""
    words = [*WORLDS[world].words, f"aux={task}", f"steps={steps}", f"seed={seed}", "device=cpu"]
    return config_of("pretrain", words, PretrainConfig)  # type: ignore[no-any-return]


def folder_of(world: str, task: str, seed: int) -> Path:
    """Where its result lies."""
    return RUNS / world / f"{task}-s{seed}"


def pixels(episodes: Episodes, view: int, rows: slice) -> NDArray[np.floating]:
    """Pictures as they are, a baseline."""
    assert episodes.views is not None
    return episodes.views[rows, view].reshape(rows.stop - rows.start, -1).astype(np.float32)


def embedding(parts: PretrainingParts) -> Embed:
    """What the task of a pretraining makes of an episode."""
    ((_, task),) = parts.suite
    assert isinstance(task, GoalTask)
    back, stride = ((task.frames - 1) * task.stride, task.stride) if isinstance(task, MultiFrameTCN) else (0, 1)

    @torch.no_grad()
    def embed(episodes: Episodes, view: int, rows: slice) -> NDArray[np.floating]:
        assert episodes.views is not None
        each = np.arange(rows.start, rows.stop)[:, None] + np.arange(-back, 1, stride)
        pictures = torch.from_numpy(episodes.views[np.maximum(each, rows.start), view]).flatten(1, 2)
        return task.embed(pictures, parts.encoder).numpy()

    return embed


def spans(episodes: Episodes) -> list[slice]:
    """The frames of each episode."""
    return [slice(int(b), int(e)) for b, e in zip(episodes.begin, episodes.end, strict=True)]


def alignment(episodes: Episodes, embed: Embed) -> dict[str, float]:
    """Mean error over the episodes: among the cameras that were learned from, and between them and the other one."""
    assert episodes.views is not None
    count = episodes.views.shape[1]
    errors = []
    for rows in spans(episodes):
        views = np.stack([embed(episodes, v, rows) for v in range(count)])
        others = [alignment_error(views[[v, -1]]) for v in range(count - 1)]
        errors.append((alignment_error(views[:-1]), statistics.mean(others)))
    seen, unseen = np.mean(errors, axis=0)
    return {"seen": float(seen), "unseen": float(unseen)}


def probe(world: World, train: Episodes, held_out: Episodes, embed: Embed) -> dict[str, float]:
    """R2 of ridge regression from the first view, means over positions (of angles: sine and cosine) and velocities."""

    def read(episodes: Episodes, names: list[str]) -> NDArray[np.floating]:
        return np.stack(
            [np.concatenate([episodes.labels[name][rows] for rows in spans(episodes)]) for name in names], 1
        )

    def truth(episodes: Episodes) -> dict[str, NDArray[np.floating]]:
        position = read(episodes, world.positions)
        position = np.concatenate([np.sin(position), np.cos(position)], axis=1) if world.angles else position
        return {"positions": position, "velocities": read(episodes, world.velocities)}

    known, asked = (
        np.concatenate([embed(episodes, 0, rows) for rows in spans(episodes)]) for episodes in (train, held_out)
    )
    known, asked = comparable(known[:PROBED], asked)
    answers, right = truth(train), truth(held_out)
    return {
        name: float(r2_score(right[name], RidgeCV(RIDGE_ALPHAS).fit(known, answers[name][:PROBED]).predict(asked)))
        for name in answers
    }


def measure(name: str, train: Episodes, held_out: Episodes, embed: Embed) -> dict[str, Any]:
    """All figures of an embedding, and the moments that it finds in the first episode, first view to second."""
    rows = spans(held_out)[0]
    found = nearest_moments(embed(held_out, 0, rows), embed(held_out, 1, rows)).tolist()
    return {**alignment(held_out, embed), **probe(WORLDS[name], train, held_out, embed), "found": found}


def run(world: str, task: str, seed: int, steps: int) -> None:
    """Pretrain and measure."""
    torch.set_num_threads(1)
    config = pretraining(world, task, seed, steps)
    parts = build_pretraining(replace(config, source=Recorded(world=world)))
    views = recording(world).views
    train, held_out = (replace(part.episodes, views=views) for part in (parts.train, parts.test))
    fit_moments(parts.encoder, draw(parts, parts.train, config.batch_size, np.random.default_rng(0)).obs)
    untrained = measure(world, train, held_out, embedding(parts))
    for step in range(steps):
        update(parts, draw(parts, parts.train, config.batch_size, parts.rng), step)
    told = held_out_metrics(parts, config)
    result = {
        "steps": steps,
        "task": task,
        "seed": seed,
        "accuracy": told[f"test/{task}/accuracy"],
        "chance": told[f"test/{task}/chance"],
        "untrained": untrained,
        "trained": measure(world, train, held_out, embedding(parts)),
    }
    folder = folder_of(world, task, seed)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(result, folder / RESULT)


def spread(values: list[float]) -> str:
    """Mean and range."""
    bounds = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{bounds}"


def render_page(page: str) -> str:
    """The page with the block that the JSON gives."""
    return with_block(page, __file__, "\n".join(map(part_of_page, read_json(JSON).values())))


def part_of_page(content: dict[str, Any]) -> str:
    """The command and the table of a world."""
    figures = ("seen", "unseen", "positions", "velocities")
    rows = [["pixels", "", *(f"{content['pixels'][name]:.3f}" for name in figures)]]
    for task in dict.fromkeys(result["task"] for result in content["results"]):
        results = [result for result in content["results"] if result["task"] == task]
        for state in ("untrained", "trained"):
            told = spread([result["accuracy"] for result in results]) if state == "trained" else ""
            cells = [spread([result[state][name] for result in results]) for name in figures]
            rows.append([f"{task}, {state}, {len(results)} seeds", told, *cells])
    header = ["embedding", "accuracy", "error, seen cameras", "error, unseen camera", "R2 positions", "R2 velocities"]
    text = f"`{content['command']}`: {content['steps']:,} updates, torch {content['versions']['torch']}.\n\n"
    return text + table(header, rows)


def draw_picture(content: dict[str, Any], path: Path) -> None:
    """The moment of the second view that each moment of the first one finds, for one episode."""
    first = {result["task"]: result for result in reversed(content["results"])}
    panels = {"pixels": content["pixels"]["found"], "untrained": first["tcn"]["untrained"]["found"]}
    panels |= {task: result["trained"]["found"] for task, result in first.items()}
    figure, all_axes = plt.subplots(1, len(panels), figsize=(3 * len(panels), 3.2), sharey=True, squeeze=False)
    for axes, (name, found) in zip(all_axes[0], panels.items(), strict=True):
        axes.plot([0, len(found)], [0, len(found)], color="#b0bec5")
        axes.plot(found, ".", markersize=3, color="#3949ab")
        axes.set(title=name, xlabel="time in view 1", aspect="equal")
    all_axes[0, 0].set_ylabel("closest moment in view 2")
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)


def main() -> None:
    """Run what is missing and write the page."""
    given = options(world="pointmass", tasks="tcn,mftcn,single_view_tcn", seeds=3, steps=500, jobs=1)
    world, steps = given["world"], given["steps"]
    tasks, seeds = given["tasks"].split(","), range(given["seeds"])
    config = pretraining(world, tasks[0], 0, steps)
    need_env(config.env)
    share = config.test_share
    train, held_out = recording(world).split(share, 0)
    runs = {folder_of(world, task, seed): (world, task, seed, steps) for seed in seeds for task in tasks}
    results, failed = measured(run, runs, steps, given["jobs"])
    content = {
        "command": this_command(__file__),
        "steps": steps,
        "pixels": measure(world, train, held_out, pixels),
        "results": sorted(results.values(), key=lambda result: tasks.index(result["task"])),
        "versions": versions("dm-control", "mujoco", "scikit-learn"),
    }
    write_json(read_json(JSON) | {world: content}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))
    draw_picture(content, RESULTS / f"tcn_{world}.png")
    finish(failed)


if __name__ == "__main__":
    main()
