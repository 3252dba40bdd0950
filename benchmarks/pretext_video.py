"""Each task of video or colour alone on bouncing balls, real clips and Pong: accuracy beside a control without content.

    python benchmarks/pretext_video.py [sources=balls,clips,pong] [tasks=tracking,st_dim] [seeds=1] [steps=1000]
                                       [device=auto] [jobs=1]

Pretrains what is missing in runs/pretext_video/<source>/<task>/s<seed>, and beside it, in .../control/s<seed>, the
same on frames that lack what the task reads, where it must be at chance; `jobs` runs at a time. Balls and Pong are
probed for the positions of the balls. Then it writes these rows into results/pretext_video.json and the page's block;
others stay.
"""

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from common import (
    RESULT,
    RESULTS,
    ROOT,
    config_of,
    finish,
    gain_cells,
    gains,
    made_on,
    measured,
    need,
    options,
    origins,
    read_json,
    renewed,
    result_of,
    table,
    this_command,
    train,
    with_block,
)
from numpy.typing import NDArray
from torch import Tensor

from aux_tasks.video.tracking import Tracking
from aux_tasks.video.video_colorization import VideoColorization
from configs.schema import PretrainConfig, ProbeConfig
from datasets import Episodes, EpisodeSampler
from datasets.synthetic import RADIUS
from experiment.pretraining.run import PretrainingParts, build_pretraining, draw, losses
from experiment.probing.build import build_probing
from experiment.probing.scores import measure
from experiment.sources.build import build_source
from harness.process import tune_process
from harness.provenance import versions, write_json
from harness.seeding import numpy_stream

RUNS = ROOT / "runs" / "pretext_video"
JSON, PAGE = RESULTS / "pretext_video.json", RESULTS / "pretext_video.md"
SOURCES = {
    "balls": ["source=balls", "encoder=small"],
    "clips": ["source=videos", "encoder=small"],
    "pong": ["source=frames", "env=atari", "env.grayscale=false", "env.num_envs=16", "encoder=nips"],
}
# Nearly all of a picture is background: on plain pixels, or at 1e-3, most tasks silence the units at once.
BASE = ["threads=1", "log_every=200", "encoder.standardize=true", "learning_rate=3e-4"]
TASKS = {  # with their settings, some twice: <task>@<variant>
    "permutation": ["frame_stack=4"],
    "shuffle_learn": [],
    "odd_one_out": [],
    "arrow_of_time": [],
    "tov_vicreg": [],
    "tov_vicreg@vit": ["encoder=vit"],  # the paper's kind of encoder
    "tracking": [],
    "motion_statistics": ["grayscale=false"],
    "masked_autoencoder": ["encoder=vit"],
    "masked_autoencoder@contrast": ["encoder=vit", "aux.masked_autoencoder.options.contrast=0.1"],
    "video_colorization": [  # maps of many cells, and steps in which something moves by more than one
        "grayscale=false",
        "encoder=control_fast",
        "batch_size=16",
        "learning_rate=1e-3",
        "aux.video_colorization.options.stride=3",
    ],
    "temporal_cpc": [],
    "st_dim": [],
    "colorization": ["grayscale=false"],
    "split_brain": ["grayscale=false"],
}
MANY = ["source.episodes=2000", "source.length=10"]  # of 120 backgrounds the colours are learned by heart
SPECIAL = {  # settings of one pair alone
    ("balls", "colorization"): MANY,
    ("balls", "split_brain"): MANY,
    ("pong", "permutation"): ["aux.permutation.options.crop_rows=[14,77]"],  # hides the score
    ("pong", "tracking"): ["aux.tracking.options.patch_size=12"],  # a paddle is 6 pixels high
}
PLACES = {"balls": "[x_0,y_0,x_1,y_1]", "pong": "[ball_x,ball_y]"}
TEST_BATCHES = 32
METRICS = {"accuracy", "chance", "error_ratio", "lookup_accuracy", "overlap", "overlap_copied"}
FOLLOWED = 8  # observations that a ball is followed through
SCORE_ROWS = 10  # of 84, above the upper wall of Pong
TILE = 4  # pixels of one colour, where colours are random
Rows: TypeAlias = NDArray[np.int64]
Frames: TypeAlias = NDArray[np.uint8]  # (N, C, H, W)


# --- content that lacks what a task reads ---


def destroyed(task: str, sampler: EpisodeSampler, parts: PretrainingParts, rng: np.random.Generator) -> EpisodeSampler:
    """A sampler of frames where the task can only be guessed."""
    episodes = sampler.episodes
    match task.partition("@")[0]:
        case "tracking":
            return over(sampler, episodes, one_track(sampler, parts, rng))
        case "video_colorization" | "colorization" | "split_brain":
            return over(sampler, replace(episodes, frames=recoloured(episodes, rng)))
        case "motion_statistics" | "masked_autoencoder":  # nothing tells of the rest
            return over(
                sampler, replace(episodes, frames=rng.integers(256, size=episodes.frames.shape, dtype=np.uint8))
            )
        case "temporal_cpc" | "st_dim":  # nothing of a clip belongs together
            rows = rng.permutation(episodes.rows())
        case _:  # there is no time
            rows = np.concatenate([rng.permutation(np.arange(*span)) for span in spans(episodes)])
    frames = np.zeros(episodes.frames.shape, np.uint8)
    frames[episodes.rows()] = episodes.frames[rows]
    return over(sampler, replace(episodes, frames=frames))


def one_track(sampler: EpisodeSampler, parts: PretrainingParts, rng: np.random.Generator) -> Rows:
    """(1,) where a clip begins that can be tracked: in batches of it alone no patch tells which track it is of.

    Raises:
        ValueError: none of some batches can be.
    """
    task = dict(parts.suite)["tracking"]
    assert isinstance(task, Tracking)
    for _ in range(TEST_BATCHES):
        batch = draw(parts, sampler, 64, rng)
        valid = task.tracks(batch)[2]
        if valid.any():
            return batch.index[valid.argmax()].cpu().numpy()[None]
    raise ValueError("no clip of this source can be tracked")


def recoloured(episodes: Episodes, rng: np.random.Generator) -> Frames:
    """Frames of paler gray, with random colours of no luma: neither position nor brightness tells a colour."""
    frames = np.zeros(episodes.frames.shape, np.uint8)
    size = episodes.frames.shape[-1]
    for row in episodes.rows():
        gray = np.tensordot((0.299, 0.587, 0.114), episodes.frames[row], 1)
        tiles = rng.uniform(-50, 50, (2, size // TILE + 1, size // TILE + 1)).repeat(TILE, 1).repeat(TILE, 2)
        red, blue = tiles[:, :size, :size]
        frames[row] = 64 + gray / 2 + np.stack([red, -(0.299 * red + 0.114 * blue) / 0.587, blue])  # 14 to 242
    return frames


def over(sampler: EpisodeSampler, episodes: Episodes, among: Rows | None = None) -> EpisodeSampler:
    """The same for other episodes."""
    depth, device = sampler.frame_stack, sampler.device
    return EpisodeSampler(episodes, frame_stack=depth, grayscale=sampler.grayscale, device=device, among=among)


def spans(episodes: Episodes) -> list[tuple[int, int]]:
    """First frame of each episode, and that behind its last."""
    return list(zip(episodes.begin.tolist(), episodes.end.tolist(), strict=True))


# --- a run ---


def folder_of(source: str, task: str, control: bool, seed: int) -> Path:
    """Where a run is."""
    return RUNS / source / task / ("control" if control else "") / f"s{seed}"


def words_of(source: str, task: str, seed: int) -> list[str]:
    """The command line of a pretraining, but for its length, device and folder."""
    frames = [f"source.path={RUNS}/frames/pong-s{seed}"] if source == "pong" else []
    special = SPECIAL.get((source, task), [])
    name = task.partition("@")[0]
    return [*SOURCES[source], *frames, f"aux={name}", f"seed={seed}", *BASE, *TASKS[task], *special]


def run(source: str, task: str, control: bool, seed: int, steps: int, device: str) -> None:
    """Pretrain and evaluate; what is not a control is probed as well."""
    folder = folder_of(source, task, control, seed)
    words = [f"steps={steps}", f"device={device}", f"diagnose_every={steps}", f"checkpoint_every={steps}"]
    config = config_of("pretrain", [*words_of(source, task, seed), *words, f"run_dir={folder}"], PretrainConfig)
    tune_process(config.threads)
    parts = build_pretraining(config)
    rng = numpy_stream(seed, "control")
    if control:
        train_on, test_on = (destroyed(task, sampler, parts, rng) for sampler in (parts.train, parts.test))
        parts = replace(parts, train=train_on, test=test_on)
    train(config, parts)
    result: dict[str, Any] = {"steps": steps, **evaluated(config, parts)}
    if (source, task) == ("balls", "video_colorization"):
        result |= followed(config, parts)
    if not control:
        result["places"] = places(folder, PLACES[source], device) if source in PLACES else None
    write_json(result | {"versions": versions()}, folder / RESULT)


@torch.no_grad()
def evaluated(config: PretrainConfig, parts: PretrainingParts) -> dict[str, float]:
    """Means over the clips of held-out batches that have an answer, and how many these are (`answers`)."""
    rng, suite = numpy_stream(config.seed, "evaluate"), parts.suite
    suite.eval()
    rows = []
    for _ in range(TEST_BATCHES):
        _, metrics = losses(parts, draw(parts, parts.test, config.batch_size, rng))
        rows.append({name.rpartition("/")[2]: float(value) for name, value in metrics.items()})
    answered = np.array([row.get("valid", row.get("tracked", 1.0)) for row in rows]) * config.batch_size
    count, names = answered.sum(), METRICS & rows[0].keys()
    means = {name: float(answered @ [row[name] for row in rows] / max(count, 1)) for name in names}
    return means | {"answers": round(count), "asked": TEST_BATCHES * config.batch_size}


@torch.no_grad()
def followed(config: PretrainConfig, parts: PretrainingParts) -> dict[str, float]:
    """Overlap (intersection over union of shares of cells) of the nearer ball with where its mask was carried to, in
    the last of `FOLLOWED` observations of held-out clips, and with where it was in the first.
    """
    task = dict(parts.suite)["video_colorization"]
    assert isinstance(task, VideoColorization)
    fields, rng = parts.suite.reads, numpy_stream(config.seed, "followed")
    batch = parts.test.sample(TEST_BATCHES * config.batch_size, fields, FOLLOWED, rng)
    assert batch.clip is not None
    begin = batch.index.cpu().numpy()
    first, last = (ball(parts.test.episodes, begin + t) for t in (0, FOLLOWED - 1))
    true = F.adaptive_avg_pool2d(last, task.cells)
    carried = task.track(first.to(batch.clip.device), batch.clip, parts.encoder)[:, -1].cpu()
    answers = {"overlap": carried, "overlap_copied": F.adaptive_avg_pool2d(first, task.cells)}
    return {n: float(found.minimum(true).sum() / found.maximum(true).sum()) for n, found in answers.items()}


def ball(episodes: Episodes, rows: Rows) -> Tensor:
    """(B, 1, size, size) masks of ball 0, before all others."""
    size = episodes.frames.shape[-1]
    middle = np.arange(size) + 0.5
    x, y = (episodes.labels[f"{axis}_0"][rows][:, None, None, None] for axis in "xy")
    return torch.from_numpy(np.hypot(middle - x, middle[:, None] - y) < RADIUS * size).float()


def places(folder: Path, labels: str, device: str) -> dict[str, float]:
    """Mean R2 of ridge regression of the balls' positions, by features."""
    words = [f"checkpoint={folder}", f"labels={labels}", "seeds=1", f"device={device}", "threads=1"]
    config = config_of("probe", words, ProbeConfig)
    scores, _ = measure(config, build_probing(config))
    r2 = {row: values for row, values in scores.items() if row.metric == "r2"}
    kinds = dict.fromkeys(row.features for row in r2)
    return {kind: float(np.mean([v for row, v in r2.items() if row.features == kind])) for kind in kinds}


# --- the tables ---

HEADER = [
    "task",
    "updates",
    "held-out accuracy (95 %)",
    "chance",
    "control (95 %)",
    "chance",
    "answerable",
    "torch",
]
PROBED = ["pixels", "maps: untrained", "trained", "difference", "output: untrained", "trained", "difference"]


def row_of(source: str, task: str, real: list[dict[str, Any]], control: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of the results of a task and of its control."""
    row: dict[str, Any] = {"task": task, "seeds": len(real)}
    row |= {"real": pooled(real), "control": pooled(control), "torch": made_on(real)}
    if source in PLACES:
        found = [result["places"] for result in real]
        row["pixels"] = float(np.mean([r2["pixels"] for r2 in found]))
        for layer in ("maps", "output"):
            row[layer] = gains(*([r2[f"{when} {layer}"] for r2 in found] for when in ("initial", "trained")))
    return row


def pooled(results: list[dict[str, Any]]) -> dict[str, Any] | None:
    """All answers of some runs together, with Wilson's 95 % interval of the accuracy; None without any."""
    weight = np.array([result["answers"] for result in results])
    if not (count := int(weight.sum())):
        return None
    names = METRICS & results[0].keys()
    found: dict[str, Any] = {name: float(weight @ [result[name] for result in results] / count) for name in names}
    if (share := found.get("accuracy")) is not None:
        z = 1.96
        middle, half = share + z**2 / 2 / count, z * (share * (1 - share) / count + z**2 / 4 / count**2) ** 0.5
        found["interval"] = [(middle + side * half) / (1 + z**2 / count) for side in (-1, 1)]
    return found | {"answers": count, "answerable": count / sum(result["asked"] for result in results)}


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    first = [row["task"], f"{row['steps']:,}", *answer_cells(row["real"]), *answer_cells(row["control"])]
    first += [f"{row['real']['answerable']:.2f}" if row["real"] else "0", row["torch"]]
    first += [f"{row['pixels']:.2f}"] if "pixels" in row else []
    return first + [cell for layer in ("maps", "output") if layer in row for cell in gain_cells(row[layer], 2)]


def answer_cells(found: dict[str, Any] | None) -> list[str]:
    """Accuracy with its interval and what else there is, and chance."""
    if found is None:
        return ["", ""]
    told = []
    if "accuracy" in found:
        low, high = found["interval"]
        told.append(f"{found['accuracy']:.3f} [{low:.3f}, {high:.3f}]")
    more = {"error ratio": "error_ratio", "lookup": "lookup_accuracy"}
    more |= {"overlap": "overlap", "copied": "overlap_copied"}
    told += [f"{name} {found[key]:.2f}" for name, key in more.items() if key in found]
    return [", ".join(told), f"{found['chance']:.3f}" if "chance" in found else "ratio 1"]


def score_changes(seed: int) -> float:
    """Share of held-out clips of Pong, as `arrow_of_time` has them, in which the score bar changes."""
    config = config_of("pretrain", [*words_of("pong", "arrow_of_time", seed), "device=cpu"], PretrainConfig)
    parts = build_pretraining(config)
    clip = draw(parts, parts.test, TEST_BATCHES * config.batch_size, numpy_stream(seed, "evaluate")).clip
    assert clip is not None
    bar = clip[..., :SCORE_ROWS, :]
    return float((bar != bar[:, :1]).flatten(1).any(1).float().mean())


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content, text = read_json(JSON), ""
    for source, rows in content["sources"].items():
        text += f"\n## {source}\n\n{origins(rows)}"
        if source == "pong":
            text += f"\nThe score bar changes in {content['score_changes']:.2f} of the clips.\n"
        text += "\n" + table(HEADER + (PROBED if source in PLACES else []), map(cells, rows))
    return with_block(page, __file__, text)


def main() -> None:
    """Run what is missing and write the tables."""
    chosen = options(sources=",".join(SOURCES), tasks=",".join(TASKS), seeds=1, steps=1000, device="auto", jobs=1)
    steps, seeds = chosen["steps"], range(chosen["seeds"])
    if "clips" in chosen["sources"].split(","):
        need("data/clips", "make clips")
    pairs = list(product(chosen["sources"].split(","), chosen["tasks"].split(",")))
    each = [(*pair, control, seed) for pair in pairs for control in (False, True) for seed in seeds]
    runs = {folder_of(*one): (*one, steps, chosen["device"]) for one in each}
    for seed in {one[3] for folder, one in runs.items() if one[0] == "pong" and not result_of(folder, steps)}:
        config = config_of("pretrain", words_of("pong", "st_dim", seed), PretrainConfig)
        build_source(config.source, config.env, seed)  # or all of its runs would record at once
    results, failed = measured(run, runs, steps, chosen["jobs"])
    made, before = f"`{this_command(__file__)}`", read_json(JSON)
    told, score = before.get("sources", {}), before.get("score_changes")
    for source, task in pairs:
        real, control = (
            [results[folder] for seed in seeds if (folder := folder_of(source, task, side, seed)) in results]
            for side in (False, True)
        )
        if real:
            row = {"made": made, "steps": steps, **row_of(source, task, real, control)}
            told[source] = renewed(told.get(source, []), [row], TASKS)
    if "pong" in chosen["sources"].split(","):
        score = score_changes(0)
    write_json({"sources": {name: told[name] for name in SOURCES if name in told}, "score_changes": score}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))
    finish(failed)


if __name__ == "__main__":
    main()
