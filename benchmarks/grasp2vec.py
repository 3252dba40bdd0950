"""Grasp2Vec on the grasping world: retrieval, localisation, and grasping what a picture shows.

    python benchmarks/grasp2vec.py [seeds=3] [steps=12000] [episodes=1000] [jobs=1]
    python benchmarks/grasp2vec.py space=zoo/grasp2vec [episodes=1000] [picture=grasp2vec.png] [report=report.json]

The first form pretrains by `experiment=pretrain_grasp2vec` what is missing in runs/grasp2vec/s<seed>, measures it and
writes results/grasp2vec.json and the block of its page. The second form measures one goal space and prints its table.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from common import (
    RESULT,
    RESULTS,
    ROOT,
    config_of,
    finish,
    made_on,
    mean_cell,
    measured,
    need_env,
    options,
    read_json,
    table,
    this_command,
    with_block,
)
from numpy.typing import NDArray
from torch import Tensor

from aux_tasks.goals.grasp2vec import Grasp2Vec
from configs.schema import PretrainConfig
from encoders import Encoder, fit_moments
from envs import GraspingConfig, GraspingVector
from envs.grasping_objects import SPLITS
from experiment.goals.space import TaskSpace, space_file
from experiment.pretraining.run import build_pretraining, draw
from experiment.sources.triplets import aim_at_any
from harness.files import sha256
from harness.process import tune_process
from harness.provenance import versions, write_json
from harness.seeding import derive, numpy_stream
from pretrain import pretrain

RUNS = ROOT / "runs" / "grasp2vec"
JSON, PAGE = RESULTS / "grasp2vec.json", RESULTS / "grasp2vec.md"
COPIES = 20  # trays at once
SEED = 1000  # of the measured episodes, which no training has seen
BINS = 4  # of a colour channel, in the baseline of colours
Policy: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.float32]]  # of scenes and goal pictures
Aim: TypeAlias = Callable[[GraspingVector, NDArray[Any]], NDArray[Any]]  # the actions at an environment's scenes
MEASURES = {  # by name: what the table calls it
    "retrieval": "retrieval",
    "retrieval_other": "retrieval, own picture left out",
    "localisation": "heat at the object",
    "instance": "grasped the desired object",
    "any": "grasped any object",
}


class Network(NamedTuple):
    """What is measured."""

    task: Grasp2Vec
    encoder: Encoder


class Grasps(NamedTuple):
    """M successful grasps: pictures (M, 3, H, W) uint8, and the numbers (M,) of the objects."""

    before: Tensor
    after: Tensor
    outcome: Tensor
    number: Tensor


# --- what is asked ---


def scripted_grasps(split: str, count: int) -> Grasps:
    """Grasps at the middle of an object drawn at random."""
    env, rng = GraspingConfig(num_envs=COPIES, split=split).build(), numpy_stream(SEED, "aim")
    before, rows = env.reset(derive(SEED, "retrieval")), list[tuple[NDArray[Any], ...]]()
    for _ in range(count // COPIES):
        action = aim_at_any(env, rng)
        step = env.step(action)
        rows.append((before, step.frame, env.outcome_frame(), env.labels()["held"]))
        before = env.step(action).frame
    env.close()
    return Grasps(*(torch.from_numpy(np.concatenate(part)) for part in zip(*rows, strict=True)))


def retrieval(query: Tensor, key: Tensor, number: Tensor) -> dict[str, float]:
    """How often the key (M, D) nearest to a query by cosine is of the same object; with and without its own key."""
    likeness = F.normalize(query) @ F.normalize(key).T
    whole = number[likeness.argmax(1)] == number
    other = number[likeness.fill_diagonal_(-torch.inf).argmax(1)] == number
    return {"retrieval": float(whole.float().mean()), "retrieval_other": float(other.float().mean())}


@torch.no_grad()
def embedded(network: Network, grasps: Grasps) -> tuple[Tensor, Tensor]:
    """Differences of scenes and embeddings of outcomes, (M, D) each."""
    parts = [
        (network.task.difference(before, after, network.encoder), network.task.embed(outcome, network.encoder))
        for before, after, outcome in zip(*(torch.split(pictures, 100) for pictures in grasps[:3]), strict=True)
    ]
    query, key = (torch.cat(part) for part in zip(*parts, strict=True))
    return query, key


def pixels(grasps: Grasps) -> tuple[Tensor, Tensor]:
    """What differs between the scenes, pixel by pixel, and the outcome beside the mean one."""
    before, after, outcome = (pictures.flatten(1).float() for pictures in grasps[:3])
    return before - after, outcome - outcome.mean(0)


def colours(grasps: Grasps) -> tuple[Tensor, Tensor]:
    """The same of histograms of colours, BINS^3 of each picture: where things are makes no difference."""

    def histogram(pictures: Tensor) -> Tensor:
        r, g, b = (pictures.long() * BINS // 256).flatten(2).unbind(1)
        return F.one_hot((r * BINS + g) * BINS + b, BINS**3).float().mean(1)

    before, after, outcome = map(histogram, grasps[:3])
    return before - after, outcome - outcome.mean(0)


def argmax_policy(network: Network) -> Policy:
    """Grasp where the heatmap of the goal picture is hottest."""

    @torch.no_grad()
    def act(scene: NDArray[np.uint8], goal: NDArray[np.uint8]) -> NDArray[np.float32]:
        wanted = network.task.embed(torch.from_numpy(goal), network.encoder)
        heat = network.task.heatmap(torch.from_numpy(scene), wanted, network.encoder)
        size = scene.shape[-1]
        grown = F.interpolate(heat[:, None], (size, size), mode="bicubic", align_corners=False)[:, 0]
        hottest = grown.flatten(1).argmax(1)
        position = torch.stack([hottest % size, hottest // size], dim=1)
        point: NDArray[np.float32] = ((position + 0.5) / size * 2 - 1).float().numpy()
        return point

    return act


def episodes(split: str, count: int, aim: Aim, grid: int = 0) -> Iterator[dict[str, NDArray[np.bool_]]]:
    """One attempt in each of `count` trays, aimed by `aim(env, scenes)`."""
    env = GraspingConfig(num_envs=COPIES, split=split, grid=grid).build()
    scene = env.reset(derive(SEED, "grasping"))
    for _ in range(count // COPIES):
        action, desired = aim(env, scene), env.labels()["desired"]
        there = env.object_at(env.point(action)) == desired
        env.step(action)
        held = env.labels()["held"]
        yield {"localisation": there, "instance": held == desired, "any": held >= 0}
        scene = env.step(action).frame
    env.close()


def shares(found: Iterable[dict[str, NDArray[np.bool_]]]) -> dict[str, float]:
    """The mean of each measure."""
    rows = list(found)
    return {name: float(np.concatenate([row[name] for row in rows]).mean()) for name in rows[0]}


def measure(network: Network, split: str, count: int) -> dict[str, float]:
    """All of it for one network."""
    policy = argmax_policy(network)
    return retrieval(*embedded(network, grasps := scripted_grasps(split, count)), grasps.number) | shares(
        episodes(split, count, lambda env, scene: policy(scene, env.goal_frame()))
    )


def baselines(split: str, count: int) -> dict[str, dict[str, float]]:
    """What needs no network."""
    grasps, rng = scripted_grasps(split, count), numpy_stream(SEED, "baselines")
    number = grasps.number
    same = float((number[:, None] == number).float().mean())
    uniform = shares(episodes(split, count, lambda *_: rng.uniform(-1, 1, (COPIES, 2)).astype(np.float32)))
    return {
        "pixels": retrieval(*pixels(grasps), number),
        "colours": retrieval(*colours(grasps), number),
        "any object": shares(episodes(split, count, lambda env, _: aim_at_any(env, rng))),
        "chance": {"retrieval": same, "retrieval_other": same, **uniform},
    }


# --- runs ---


def folder_of(seed: int) -> Path:
    """Where a run is."""
    return RUNS / f"s{seed}"


def config_for(seed: int, steps: int) -> PretrainConfig:
    """A pretraining."""
    words = [
        "experiment=pretrain_grasp2vec",
        f"seed={seed}",
        f"steps={steps}",
        "threads=1",
        f"run_dir={folder_of(seed)}",
    ]
    words += ["log_every=500", f"diagnose_every={steps}"]
    return config_of("pretrain", words, PretrainConfig)  # type: ignore[no-any-return]


def run(seed: int, steps: int, count: int) -> None:
    """Pretrain, unless it is done, and measure, the untrained network too."""
    config, folder = config_for(seed, steps), folder_of(seed)
    tune_process(config.threads)
    if code := pretrain(config):
        sys.exit(code)
    parts = build_pretraining(config)
    for module in (parts.encoder, parts.suite):  # as the training began
        fit_moments(module, draw(parts, parts.train, config.batch_size, parts.rng).obs)
    ((_, task),) = parts.suite
    assert isinstance(task, Grasp2Vec)
    found: dict[str, Any] = {"steps": steps, "versions": versions("mujoco")}
    for split in SPLITS:
        found[split] = {
            "trained": measure(load(str(folder)), split, count),
            "untrained": measure(Network(task, parts.encoder), split, count),
        }
    write_json(found, folder / RESULT)


def load(space: str) -> Network:
    """The network of a goal space."""
    frozen = TaskSpace.load(space_file(space), torch.device("cpu"))
    assert isinstance(frozen.task, Grasp2Vec), f"{space} is not of aux=grasp2vec"
    return Network(frozen.task, frozen.encoder)


# --- pictures and tables ---


def draw_examples(network: Network, path: Path) -> None:
    """Scenes, what was taken, where the heatmap finds it, and the outcomes that are nearest to the difference."""
    rows = [(split, scripted_grasps(split, 200)) for split in SPLITS]
    fig, axes = plt.subplots(6, 7, figsize=(8.4, 7.4), layout="constrained")
    for s, (split, grasps) in enumerate(rows):
        query, key = embedded(network, grasps)
        likeness = (F.normalize(query) @ F.normalize(key).T).fill_diagonal_(-torch.inf)
        nearest = likeness.topk(3, dim=1).indices
        with torch.no_grad():
            heat = network.task.heatmap(grasps.before[:3], key[:3], network.encoder)
        for i in range(3):
            line = axes[3 * s + i]
            shown = [grasps.before[i], grasps.after[i], grasps.outcome[i], grasps.before[i]]
            shown += [grasps.outcome[j] for j in nearest[i]]
            for k, (ax, picture) in enumerate(zip(line, shown, strict=True)):
                ax.imshow(picture.permute(1, 2, 0))
                ax.set(xticks=[], yticks=[])
                if k > 3:
                    same = grasps.number[nearest[i, k - 4]] == grasps.number[i]
                    for side in ax.spines.values():
                        side.set(color="#2a9d3a" if same else "#d1495b", linewidth=3)
            grown = F.interpolate(heat[i, None, None], (64, 64), mode="bicubic", align_corners=False)[0, 0]
            line[3].imshow(grown, cmap="inferno", alpha=0.75)
            line[0].set_ylabel(f"{split} objects" if i == 1 else "")
    for ax, name in zip(axes[0], ["before", "after", "grasped", "heat", *(["nearest"] * 3)], strict=True):
        ax.set_title(name, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=110)
    plt.close(fig)


def cell(values: list[float]) -> str:
    """The mean in percent, and half of its 95 % t interval over the seeds."""
    return mean_cell([100 * value for value in values], 1)


def tables(scores: dict[str, dict[str, list[dict[str, float]]]]) -> str:
    """A table for each set of objects, of what was found by seed, by arm, by split."""
    text = ""
    for split, arms in scores.items():
        rows = [
            [arm, *(cell([one[name] for one in found]) if name in found[0] else "" for name in MEASURES)]
            for arm, found in arms.items()
        ]
        text += f"\n{split.capitalize()} objects, percent:\n\n{table(['', *MEASURES.values()], rows)}"
    return text


def report(results: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """What the page is made of."""
    scores = {
        split: {arm: [result[split][arm] for result in results] for arm in ("trained", "untrained")}
        | {arm: [found] for arm, found in baselines(split, count).items()}
        for split in SPLITS
    }
    made = f"`{this_command(__file__)}`"
    return {"made": made, "seeds": len(results), "episodes": count, "torch": made_on(results), "scores": scores}


def measure_one(space: str, count: int, picture: str, kept: str) -> None:
    """Print the table of one goal space; draw its picture and keep its report where files are named for them."""
    network, file = load(space), space_file(space)
    if picture:
        draw_examples(network, Path(picture))
    scores = {split: {"trained": [measure(network, split, count)]} for split in SPLITS}
    print(tables(scores))
    if kept:
        made = {"command": this_command(__file__), "versions": versions("mujoco")}
        write_json({"sha256": {file.name: sha256(file)}, "episodes": count, "scores": scores, **made}, Path(kept))


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    found = read_json(JSON)
    seeds = f"{found['seeds']} seed" + "s" * (found["seeds"] > 1)
    head = f"{found['made']}, {seeds}, {found['steps']:,} updates, {found['episodes']:,} grasps a cell,"
    return with_block(page, __file__, f"{head} torch {found['torch']}.\n{tables(found['scores'])}")


def main() -> None:
    """Measure one goal space, or run what is missing and write the table."""
    chosen = options(seeds=3, steps=12_000, episodes=1_000, jobs=1, space="", picture="", report="")
    count = chosen["episodes"]
    need_env(GraspingConfig())  # it chooses the renderer once, not in each process
    if chosen["space"]:
        measure_one(chosen["space"], count, chosen["picture"], chosen["report"])
        return
    seeds, steps = range(chosen["seeds"]), chosen["steps"]
    runs = {folder_of(seed): (seed, steps, count) for seed in seeds}
    results, failed = measured(run, runs, steps, chosen["jobs"])
    if results:
        write_json({"steps": steps, **report(list(results.values()), count)}, JSON)
        PAGE.write_text(render_page(PAGE.read_text()))
    finish(failed)


if __name__ == "__main__":
    main()
