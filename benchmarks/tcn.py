"""Do time-contrastive embeddings find a moment again that another camera saw?

    python benchmarks/tcn.py [tasks=tcn,mftcn,single_view_tcn] [seeds=3] [steps=1000] [jobs=1]

Records reacher once, by three cameras, and other episodes by these and a fourth; pretrains as `experiment=pretrain_tcn`
says what is missing in runs/tcn; writes results/tcn.json, the block of results/tcn.md and its picture. Seeds differ in
weights and batches. After each run, alignment errors and ridge probes of the episodes that nothing learned from, beside
the same networks untrained, and pixels.
"""

import shlex
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from common import RESULT, RESULTS, config_of, finish, options, read_json, result_of, side_by_side, table, with_block
from numpy.typing import NDArray
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from analysis.alignment import alignment_error, nearest_moments
from analysis.probes import RIDGE_ALPHAS, comparable
from aux_tasks.goals.base import GoalTask
from aux_tasks.goals.mftcn import MultiFrameTCN
from configs.schema import PretrainConfig
from configs.sources import FramesConfig, SourceConfig
from datasets import Episodes
from encoders import standardize
from experiment.pretraining import Pretraining, build_pretraining
from experiment.sources import build_source
from harness.provenance import versions, write_json
from pretrain import draw, test, update

JSON, PAGE, PICTURE = RESULTS / "tcn.json", RESULTS / "tcn.md", RESULTS / "tcn.png"
RUNS = Path("runs/tcn")
UNSEEN = "45/-60"  # camera
TEST_FRAMES, TEST_SEED = 2_000, 1_000
PROBED = 4_000  # frames that a ridge probe is fitted to
POSITIONS, VELOCITIES = ("position_0", "position_1"), ("velocity_0", "velocity_1")
Embed = Callable[[Episodes, int, slice], NDArray[np.floating]]  # of a view of some frames of an episode


@dataclass(frozen=True)
class Recorded(SourceConfig):
    """One recording for all seeds."""

    name: str = field(default="recorded", kw_only=True)
    config: PretrainConfig | None = None

    def read(self, seed: int) -> Episodes:  # noqa: ARG002
        """See `SourceConfig.read`."""
        assert self.config is not None
        return build_source(self.config.source, self.config.env, 0)


def recordings(config: PretrainConfig) -> tuple[Episodes, Episodes]:
    """What is learned from, and what the fourth camera saw too."""
    env: Any = config.env
    more = replace(env, views=[*env.views, UNSEEN])
    return build_source(config.source, env, 0), build_source(FramesConfig(TEST_FRAMES), more, TEST_SEED)


def pretraining(task: str, seed: int, steps: int) -> PretrainConfig:
    """The run of a task."""
    words = ["experiment=pretrain_tcn", f"aux={task}", f"steps={steps}", f"seed={seed}", "device=cpu"]
    return config_of("pretrain", words, PretrainConfig)  # type: ignore[no-any-return]


def pixels(episodes: Episodes, view: int, rows: slice) -> NDArray[np.floating]:
    """Pictures as they are, a baseline."""
    assert episodes.views is not None
    return episodes.views[rows, view].reshape(rows.stop - rows.start, -1).astype(np.float32)


def embedding(parts: Pretraining) -> Embed:
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


def truth(episodes: Episodes) -> NDArray[np.floating]:
    """(N, 6): sine and cosine of both joint angles, and both velocities."""
    angle = np.stack([episodes.labels[name] for name in POSITIONS], axis=1)
    speed = np.stack([episodes.labels[name] for name in VELOCITIES], axis=1)
    return np.concatenate([np.sin(angle), np.cos(angle), speed], axis=1)


def probe(train: Episodes, held_out: Episodes, embed: Embed) -> dict[str, float]:
    """R2 of ridge regression from the first view, means over angles and velocities."""
    known, asked = (
        np.concatenate([embed(episodes, 0, rows) for rows in spans(episodes)]) for episodes in (train, held_out)
    )
    known, asked = comparable(known[:PROBED], asked)
    model = RidgeCV(RIDGE_ALPHAS, alpha_per_target=True).fit(known, truth(train)[:PROBED])
    scores = r2_score(truth(held_out), model.predict(asked), multioutput="raw_values")
    return {"positions": float(np.mean(scores[:4])), "velocities": float(np.mean(scores[4:]))}


def measure(train: Episodes, held_out: Episodes, embed: Embed) -> dict[str, Any]:
    """All figures of an embedding, and the moments that it finds in the first episode, first view to second."""
    rows = spans(held_out)[0]
    found = nearest_moments(embed(held_out, 0, rows), embed(held_out, 1, rows)).tolist()
    return {**alignment(held_out, embed), **probe(train, held_out, embed), "found": found}


def run(task: str, seed: int, steps: int) -> None:
    """Pretrain and measure."""
    torch.set_num_threads(1)
    config = pretraining(task, seed, steps)
    train, held_out = recordings(config)
    parts = build_pretraining(replace(config, source=Recorded(config=config)))
    standardize(parts.encoder, draw(parts, parts.train, config.batch_size, np.random.default_rng(0)).obs)
    untrained = measure(train, held_out, embedding(parts))
    for step in range(steps):
        update(parts, draw(parts, parts.train, config.batch_size, parts.rng), step)
    told = test(parts, config)
    result = {
        "steps": steps,
        "task": task,
        "seed": seed,
        "accuracy": told[f"test/{task}/accuracy"],
        "chance": told[f"test/{task}/chance"],
        "untrained": untrained,
        "trained": measure(train, held_out, embedding(parts)),
    }
    folder = RUNS / f"{task}-s{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(result, folder / RESULT)


def spread(values: list[float]) -> str:
    """Mean and range."""
    bounds = f" ({min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{bounds}"


def remade(page: str) -> str:
    """The page with the block that the JSON gives."""
    content = read_json(JSON)
    figures = ("seen", "unseen", "positions", "velocities")
    rows = [["pixels", "", *(f"{content['pixels'][name]:.3f}" for name in figures)]]
    for task in dict.fromkeys(result["task"] for result in content["results"]):
        results = [result for result in content["results"] if result["task"] == task]
        for state in ("untrained", "trained"):
            told = spread([result["accuracy"] for result in results]) if state == "trained" else ""
            cells = [spread([result[state][name] for result in results]) for name in figures]
            rows.append([f"{task}, {state}, {len(results)} seeds", told, *cells])
    header = ["embedding", "accuracy", "error, seen cameras", "error, unseen camera", "R2 angles", "R2 velocities"]
    text = f"`{content['command']}`: {content['steps']:,} updates, torch {content['versions']['torch']}.\n\n"
    return with_block(page, __file__, text + table(header, rows))


def draw_picture(content: dict[str, Any]) -> None:
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
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Run what is missing and write the page."""
    given = options(tasks="tcn,mftcn,single_view_tcn", seeds=3, steps=1_000, jobs=1)
    tasks, seeds, steps = given["tasks"].split(","), range(given["seeds"]), given["steps"]
    train, held_out = recordings(pretraining(tasks[0], 0, steps))
    each = [(task, seed) for seed in seeds for task in tasks]
    missing = [(*one, steps) for one in each if not result_of(RUNS / f"{one[0]}-s{one[1]}", steps)]
    failed = side_by_side(run, missing, given["jobs"])
    found = [result_of(RUNS / f"{task}-s{seed}", steps) for task in tasks for seed in seeds]
    command = shlex.join(["python", "benchmarks/tcn.py", *sys.argv[1:]])
    content = {
        "command": command,
        "steps": steps,
        "pixels": measure(train, held_out, pixels),
        "results": [result for result in found if result],
        "versions": versions("dm-control", "mujoco", "scikit-learn"),
    }
    write_json(content, JSON)
    PAGE.write_text(remade(PAGE.read_text()))
    draw_picture(content)
    finish(failed)


if __name__ == "__main__":
    main()
