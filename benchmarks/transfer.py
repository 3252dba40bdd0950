"""Pong from an encoder pretrained on random play, beside Pong from scratch, with the same budget of steps.

    python benchmarks/transfer.py [tasks=shuffle_learn,st_dim] [seeds=2] [steps=150000] [pretrain_steps=5000]
                                     [device=auto] [jobs=1]

Records, pretrains and trains what is missing in runs/transfer (run the same command again to resume), `jobs` processes
side by side, then writes results/transfer.json and the block of its page. The default tasks are the two after which a
probe of the agent's network finds Pong's ball best in one frame (pretext_video.md). Each seed has its own recording and
its own pretraining, which begins with the same weights as its training from scratch.
"""

import statistics
import sys
from pathlib import Path
from typing import Any

from common import (
    RESULTS,
    config_of,
    curve,
    finish,
    gain_cell,
    gains,
    games,
    log_of,
    options,
    read_json,
    side_by_side,
    table,
    this_command,
    with_block,
)
from pretext_mnist import answered

from configs.schema import Config, PretrainConfig
from experiment.sources.build import build_source
from harness.provenance import versions, write_json
from pretrain import pretrain
from train import train

JSON, PAGE = RESULTS / "transfer.json", RESULTS / "transfer.md"
RUNS = Path("runs/transfer")  # relative: the folder may go on on another machine
SCRATCH = "scratch"
WINDOW = 25_000  # agent steps for a point of the curve
PIXELS = "encoder.standardize=true"  # on plain pixels of Pong next to nothing is learned: results/pretext_video.md


def pretrained_at(task: str, seed: int, given: dict[str, Any]) -> Path:
    """The pretraining's folder."""
    return RUNS / f"pretrain-{given['pretrain_steps']}" / task / f"s{seed}"


def pretraining(task: str, seed: int, given: dict[str, Any]) -> PretrainConfig:
    """On 12,000 frames of random play, for the encoder of `experiment=pong_cpu`."""
    folder = pretrained_at(task, seed, given)
    words = ["source=frames", "env=atari", "env.game=pong", "frame_stack=4", "encoder=nips", f"aux={task}"]
    words += [PIXELS, "learning_rate=3e-4", f"steps={given['pretrain_steps']}"]
    words += [f"device={given['device']}", f"seed={seed}", f"run_dir={folder}", "threads=1"]
    return config_of("pretrain", words, PretrainConfig)  # type: ignore[no-any-return]


def folder_of(start: str, seed: int, given: dict[str, Any]) -> Path:
    """The training's folder."""
    name = start if start == SCRATCH else f"{start}-{given['pretrain_steps']}"
    return RUNS / f"train-{given['steps']}" / name / f"s{seed}"


def done(folder: Path, steps: int) -> bool:
    """Whether a run is at its end."""
    return (folder / "metrics.jsonl").is_file() and log_of(folder)[-1]["step"] >= steps


def run(start: str, seed: int, given: dict[str, Any]) -> None:
    """Pretrain, unless from scratch or done, and train."""
    folder, words = folder_of(start, seed, given), list[str]()
    if start != SCRATCH:
        encoder, config = pretrained_at(start, seed, given), pretraining(start, seed, given)
        if not done(encoder, config.steps) and (code := pretrain(config)):
            sys.exit(code)
        words = [f"encoder.init={encoder}"]
    words += ["experiment=pong_cpu", PIXELS, "aux=none", "until_score=null", "eval_episodes=0"]
    words += [f"steps={given['steps']}"]
    words += [f"device={given['device']}", f"seed={seed}", f"run_dir={folder}", "threads=1"]
    words += ["replay.storage=cuda"] if given["device"] == "cuda" else []
    sys.exit(train(config_of("config", words, Config)))


def row_of(start: str, given: dict[str, Any], scratch: list[list[float]]) -> dict[str, Any]:
    """Curve and area of each seed, and the areas' paired differences from `scratch`."""
    seeds, steps = range(given["seeds"]), given["steps"]
    curves = [curve(games(folder_of(start, seed, given)), steps, WINDOW) for seed in seeds]
    row: dict[str, Any] = {"start": start, "curves": curves, "areas": [statistics.mean(points) for points in curves]}
    if start != SCRATCH:
        row["pretext"] = [answered(pretrained_at(start, seed, given), start) for seed in seeds]
        row |= gains([statistics.mean(points) for points in scratch], row["areas"])
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    points = [f"{statistics.mean(scores):.1f}" for scores in zip(*row["curves"], strict=True)]
    areas = ", ".join(f"{area:.2f}" for area in row["areas"])
    area = f"{statistics.mean(row['areas']):.2f} ({areas})"
    if row["start"] == SCRATCH:
        return [SCRATCH, "", *points, area, ""]
    metric, guess = (statistics.mean(values) for values in zip(*row["pretext"], strict=True))
    return [row["start"], f"{metric:.3f} ({guess:.3f})", *points, area, gain_cell(row, 2)]


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content = read_json(JSON)
    given, window = content["options"], content["window"]
    steps = given["steps"]
    text = (
        f"`{content['command']}`: {steps:,} agent steps, {given['seeds']} seeds, {given['pretrain_steps']:,} updates "
        f"of pretraining, torch {content['versions']['torch']}.\n\n"
    )
    marks = [f"{min(low + window, steps) / 1000:g}k" for low in range(0, steps, window)]
    header = ["start", "pretext (guess)", *marks, "area (seeds)", "difference (95 %)"]
    return with_block(page, __file__, text + table(header, map(cells, content["rows"])))


def main() -> None:
    """Run what is missing and write the table."""
    given = options(tasks="shuffle_learn,st_dim", seeds=2, steps=150_000, pretrain_steps=5_000, device="auto", jobs=1)
    tasks, seeds, steps = given["tasks"].split(","), range(given["seeds"]), given["steps"]
    for seed in seeds:  # or all of its runs would record at once
        config = pretraining(tasks[0], seed, given)
        build_source(config.source, config.env, seed)
    starts = (SCRATCH, *tasks)
    each = [(start, seed, given) for seed in seeds for start in starts]
    finish(side_by_side(run, [one for one in each if not done(folder_of(*one), steps)], given["jobs"]))
    scratch = [curve(games(folder_of(SCRATCH, seed, given)), steps, WINDOW) for seed in seeds]
    rows = [row_of(start, given, scratch) for start in starts]
    command = this_command(__file__)
    content = {"command": command, "options": given, "window": WINDOW, "rows": rows, "versions": versions()}
    write_json(content, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


if __name__ == "__main__":
    main()
