"""What goal spaces know of the pusher, and whether imagined goals belong to the scene.

    python benchmarks/goal_spaces.py RUN ...

Each RUN is the folder of a pretraining with a task that defines goals. Pictures are those of 100 new episodes of its
environment. Writes results/goal_spaces.json and the block of its page; other runs keep their rows.
"""

import json
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from common import RESULTS, log_of, need_env, read_json, table, with_block
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn

from analysis.policies import random_policy
from configs.schema import PretrainConfig
from encoders import EncoderConfig, build_encoder
from envs import EnvConfig, PusherConfig, Rollout
from experiment.command_line.composition import read_config
from experiment.goals.check import cross_validated_r2
from experiment.goals.env import PixelSpace
from experiment.goals.space import TaskSpace, space_file
from experiment.training.build import build_initial_encoder
from harness.process import tune_process
from harness.provenance import versions, write_json
from harness.seeding import numpy_stream

JSON, PAGE = RESULTS / "goal_spaces.json", RESULTS / "goal_spaces.md"
COPIES, STEPS, PAIRS = 100, 20, 20_000
SCENES, MOMENTS = 600, 4  # copies and steps for the looks of imagined goals
POSITIONS = ("puck_x", "puck_y", "pointer_x", "pointer_y")
LOOKS = ("color", "shape")
UPDATES, BATCH = 400, 64  # of the classifier of decoded pictures
Array = NDArray[Any]


class Play(NamedTuple):
    """Random play of many copies, N moments."""

    frames: Array  # (N, 3, H, W)
    context: Array  # (N, 3, H, W) first pictures of the episodes
    labels: dict[str, Array]  # (N,) each
    copy: Array  # (N,)


def play(config: EnvConfig, seed: int, copies: int, steps: int) -> Play:
    """The beginning of an episode of each copy."""
    with closing(replace(config, num_envs=copies).build(labels=True)) as env:
        rollout, act = Rollout(env, 1, config.padding), random_policy(env.action_space, numpy_stream(seed, "benchmark"))
        rollout.reset(seed)
        frames, labels = [], []
        for _ in range(steps):
            labels.append(env.labels())
            frames.append(rollout.step(act).frame)
    joined = {name: np.concatenate([row[name] for row in labels]) for name in labels[0]}
    context = np.concatenate([frames[0]] * steps)
    return Play(np.concatenate(frames), context, joined, np.tile(np.arange(copies), steps))


def scores(embedded: Array, distance: Array, seen: Play, pairs: Array) -> dict[str, float]:
    """R2 of each position by cross-validated ridge regression, and the rank correlation of distances to the puck's."""
    truth = np.stack([seen.labels[name] for name in POSITIONS], 1)
    found = dict(zip(POSITIONS, cross_validated_r2(embedded, truth, seen.copy), strict=True))
    apart = np.linalg.norm(truth[pairs[0], :2] - truth[pairs[1], :2], axis=1)
    return found | {"rank_correlation": float(spearmanr(distance, apart).statistic)}


def row_of(run: Path) -> list[dict[str, Any]]:
    """The rows of a run: its space, its embeddings dealt to other pictures, its encoder untrained, and pixels."""
    config = read_config(run / "config.yaml", PretrainConfig)
    assert isinstance(config.env, PusherConfig), f"{run}: these are measurements of the pusher"
    env = replace(config.env, scatter=0)  # as an agent plays it
    seen = play(env, config.seed + 1000, COPIES, STEPS)
    rng = numpy_stream(config.seed, "benchmark/pairs")
    pairs = rng.integers(len(seen.frames), size=(2, PAIRS))
    space, (task,) = TaskSpace.load(space_file(str(run)), torch.device("cpu")), config.aux
    world = env.label
    embedded = space.embed(seen.frames, seen.context)
    compared = space.compared(embedded)

    def euclid(features: Array) -> Array:
        distance: Array = np.linalg.norm(features[pairs[0]] - features[pairs[1]], axis=1)
        return distance

    trained = scores(compared, -space.reward(embedded[pairs[0]], embedded[pairs[1]]), seen, pairs)
    clock = log_of(run)[-1]["clock"]
    made = {"steps": clock["updates"], "seed": config.seed, "seconds": clock["seconds"]}
    made |= {"latents": space.goal_dim, "env": world, "config": (run / "config.yaml").read_text()}
    shuffled, features = compared[rng.permutation(len(embedded))], space.features(seen.frames)
    with torch.no_grad():
        encoder = build_initial_encoder(replace(config.encoder, init=None), seen.frames.shape[1:], config.seed)
        untrained = encoder(torch.from_numpy(seen.frames)).numpy()
    pixels = PixelSpace(seen.frames.shape[1:]).embed(seen.frames, seen.context)
    rows = [
        {"task": f"{world}/{task}", **trained, **made},
        {"task": f"{world}/{task}, features", **scores(features, euclid(features), seen, pairs)},
        {"task": f"{world}/{task}, shuffled", **scores(shuffled, euclid(shuffled), seen, pairs)},
        {"task": f"{world}/untrained encoder", **scores(untrained, euclid(untrained), seen, pairs)},
        {"task": f"{world}/pixels, 12 x 12", **scores(pixels, euclid(pixels), seen, pairs)},
    ]
    if set(LOOKS) <= seen.labels.keys():
        rows[0] |= imagined_looks(space, play(env, config.seed + 2000, SCENES, MOMENTS), rng)
    return rows


# --- do imagined goals look like their scene? ---


def imagined_looks(space: TaskSpace, seen: Play, rng: np.random.Generator) -> dict[str, float]:
    """Shares of imagined goals with the colour, the shape, and both, of the scene, as a classifier sees them decoded.

    It learns from decoded embeddings of four fifths of the copies, labelled. All shares are of the others; `decoded_*`
    are those of their own embeddings, which limit what can be told.
    """
    embedded = space.embed(seen.frames, seen.context)
    decoded, imagined = space.decode(embedded), space.decode(space.imagine(embedded, rng))
    assert decoded is not None
    assert imagined is not None
    truth = np.stack([seen.labels[name].astype(np.int64) for name in LOOKS], 1)
    known = seen.copy % 5 != 0
    predict = classifier(decoded[known], truth[known], rng)
    found: dict[str, float] = {}
    for what, pictures in (("decoded", decoded), ("imagined", imagined)):
        right = predict(pictures[~known]) == truth[~known]
        shares = [*right.mean(0), right.all(1).mean()]
        found |= {f"{what}_{name}": float(share) for name, share in zip((*LOOKS, "both"), shares, strict=True)}
    return found


def classifier(pictures: Array, labels: Array, rng: np.random.Generator) -> Any:
    """A function that tells the classes (M, 2) of pictures (M, 3, H, W), learned from (N, 2) labels."""
    torch.manual_seed(0)
    encoder = build_encoder(EncoderConfig("small"), pictures.shape[1:])
    counts = [int(column.max()) + 1 for column in labels.T]
    head = nn.Linear(encoder.feature_dim, sum(counts))
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 1e-3)

    def told(asked: Tensor) -> tuple[Tensor, ...]:
        logits: Tensor = head(encoder(asked))
        return torch.split(logits, counts, dim=1)

    for _ in range(UPDATES):
        chosen = rng.integers(len(pictures), size=BATCH)
        logits, right = told(torch.from_numpy(pictures[chosen])), torch.from_numpy(labels[chosen]).unbind(1)
        loss = torch.stack([F.cross_entropy(part, label) for part, label in zip(logits, right, strict=True)]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    @torch.no_grad()
    def predict(asked: Array) -> Array:
        parts = [told(part) for part in torch.split(torch.from_numpy(asked), 256)]
        return torch.cat([torch.stack([p.argmax(1) for p in part], 1) for part in parts]).numpy()

    return predict


# --- the page ---


def render_page(page: str | None) -> str:
    """The page with the tables that the JSON gives."""
    rows = read_json(JSON).get("rows", [])
    numbers = [[f"{row[name]:.2f}" for name in (*POSITIONS, "rank_correlation")] for row in rows]
    header = ["space", "latents", "updates", "seconds", *(f"R2 {name}" for name in POSITIONS), "rank correlation"]
    cells = [
        [
            row["task"],
            *(f"{row[key]:.0f}" if key in row else "" for key in ("latents", "steps", "seconds")),
            *given,
        ]
        for row, given in zip(rows, numbers, strict=True)
    ]
    looks = [row for row in rows if "imagined_both" in row]
    names = [f"{what}_{name}" for what in ("imagined", "decoded") for name in (*LOOKS, "both")]
    scenes = [[row["task"], *(f"{row[name]:.3f}" for name in names)] for row in looks]
    text = table(header, cells) + "\n" + table(["space", *(name.replace("_", ", ") for name in names)], scenes)
    return with_block(page, "benchmarks/goal_spaces.py", text)


def main() -> None:
    """Measure the runs of the command line."""
    need_env(PusherConfig())
    tune_process(1)
    rows = {row["task"]: row for row in read_json(JSON).get("rows", [])}
    for run in map(Path, sys.argv[1:]):
        rows |= {row["task"]: row for row in row_of(run)}
        command = f"python benchmarks/goal_spaces.py {' '.join(sys.argv[1:])}"
        write_json({"rows": [rows[name] for name in sorted(rows)], "command": command, "versions": versions()}, JSON)
    PAGE.write_text(render_page(PAGE.read_text() if PAGE.is_file() else None))
    print(json.dumps({name: {k: v for k, v in row.items() if k != "config"} for name, row in rows.items()}, indent=1))


if __name__ == "__main__":
    main()
