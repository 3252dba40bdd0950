"""Manipulated against original frames: probes of frozen encoders on a random split beside held-out groups.

    python benchmarks/forgery.py [seeds=3] [steps=200] [jobs=1]

The repetition of the study's Table III on a set that is made here, in data/forgery, of the films in data/clips
(`make clips`): pieces of six frames, each wholly original or wholly manipulated. A manipulated frame has a patch of
another shot, blurred and compressed as JPEG, with soft borders; place and donor are those of its piece. Pretrains what
is missing in runs/forgery (run the same command again to resume), then writes results/forgery.json and the block of
its page. A seed deals the pieces anew; a pretraining never sees those that its probe holds out.
"""

import io
import shutil
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    RESULTS,
    ROOT,
    config_of,
    finish,
    gain_cell,
    gains,
    need,
    options,
    read_json,
    side_by_side,
    table,
    this_command,
    untrained_probing,
    with_block,
)
from PIL import Image, ImageDraw, ImageFilter

from configs.schema import PretrainConfig, ProbeConfig
from datasets.readers import read_videos
from experiment.probing.build import build_probing
from experiment.probing.scores import measure
from harness.process import tune_process
from harness.provenance import versions, write_json
from harness.seeding import numpy_stream
from pretrain import pretrain

JSON, PAGE = RESULTS / "forgery.json", RESULTS / "forgery.md"
RUNS, FOLDER, CLIPS = ROOT / "runs" / "forgery", ROOT / "data" / "forgery", ROOT / "data" / "clips"
SIZE, PIECE = 64, 6  # pixels, frames
PATCH, BLUR, QUALITY = 36, 1.5, 20  # pixels of a patch, deviation of its blur, and quality of its JPEG
ROTATION = ["aux=rotation", "learning_rate=1e-3"]
ARMS: dict[str, list[str]] = {  # encoder, and task if any
    "alexnet": [],
    "resnet50": [],
    "small rotation": ROTATION,
    "resnet18 rotation": ROTATION,
    "resnet18 bigan": ["aux=bigan", "learning_rate=2e-4"],
}
STUDY = {  # random split and held-out videos, percent
    "AlexNet of ImageNet": (81.5, 73.5),
    "AlexNet, rotation": (75.8, 71.1),
    "ResNet-50, random": (56.7, 56.2),
    "ResNet-50 of ImageNet": (96.1, 91.1),
    "RevNet of BigBiGAN": (96.5, 92.7),
}


def make_set(folder: Path) -> None:
    """Write the pictures, folder/class/piece/frame.png, unless they are there."""
    if folder.is_dir():
        return
    need(str(CLIPS), "make clips")
    whole, folder = folder, folder.with_name(f".{folder.name}")
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    clips, rng = read_videos(CLIPS, SIZE, 1, 40.0), numpy_stream(0, "forgery")
    shots = list(zip(clips.begin, clips.end, strict=True))
    for number, (begin, end) in enumerate(shots):
        pieces = range(begin, end - PIECE + 1, PIECE)
        for first, fake in zip(pieces, rng.permutation(np.arange(len(pieces)) % 2), strict=True):
            donor = shots[rng.choice([i for i in range(len(shots)) if i != number])]
            start, corner = rng.integers(donor[0], donor[1] - PIECE + 1), rng.integers(SIZE - PATCH, size=2)
            place = folder / ("manipulated" if fake else "original") / f"{number}-{first:03d}"
            place.mkdir(parents=True)
            for i in range(PIECE):
                frame, other = (Image.fromarray(clips.frames[at + i].transpose(1, 2, 0)) for at in (first, start))
                (splice(frame, other, *corner) if fake else frame).save(place / f"{i}.png")
    folder.rename(whole)


def splice(frame: Image.Image, donor: Image.Image, x: int, y: int) -> Image.Image:
    """The frame with the donor's middle at (x, y), blurred and compressed."""
    left, packed = (SIZE - PATCH) // 2, io.BytesIO()
    patch = donor.crop((left, left, left + PATCH, left + PATCH)).filter(ImageFilter.GaussianBlur(BLUR))
    patch.save(packed, "jpeg", quality=QUALITY)
    mask = Image.new("L", (PATCH, PATCH))
    ImageDraw.Draw(mask).ellipse((3, 3, PATCH - 4, PATCH - 4), fill=255)
    whole = frame.copy()
    whole.paste(Image.open(packed), (int(x), int(y)), mask.filter(ImageFilter.GaussianBlur(1.5)))
    return whole


def config_for(arm: str, seed: int, steps: int) -> PretrainConfig:
    """The pretraining of an arm; of one without task, what its encoder begins with."""
    encoder, *_ = arm.split()
    words = [f"encoder={encoder}", "source=images", f"source.folder={FOLDER}", f"source.size={SIZE}", "device=cpu"]
    words += ["grayscale=false", "batch_size=32", "threads=1", f"seed={seed}", f"steps={steps}", "log_every=50"]
    words += [f"diagnose_every={steps}", f"checkpoint_every={steps}", f"run_dir={folder_of(arm, seed, steps)}"]
    return config_of("pretrain", [*words, *(ARMS[arm] or ["aux=rotation"])], PretrainConfig)  # type: ignore[no-any-return]


def folder_of(arm: str, seed: int, steps: int) -> Path:
    """Where the scores of an arm are, and its pretraining."""
    return RUNS / f"{steps}-steps" / arm.replace(" ", "-") / f"s{seed}"


def run(arm: str, seed: int, steps: int) -> None:
    """Pretrain, if the arm has a task, probe, and keep the scores."""
    tune_process(1)
    config, folder = config_for(arm, seed, steps), folder_of(arm, seed, steps)
    if ARMS[arm] and (code := pretrain(config)):
        sys.exit(code)
    asked = config_of("probe", [f"checkpoint={folder}", "labels=[class]", "seeds=1", "device=cpu"], ProbeConfig)
    parts = build_probing(asked) if ARMS[arm] else untrained_probing(config)
    scores, draws = measure(asked, parts)
    rows = [
        {**row._asdict(), "value": values[0]} for row, values in scores.items() if row.metric in ("accuracy", "knn")
    ]
    counts = {drawn.split: [len(drawn.train), len(drawn.test)] for drawn in draws}
    write_json({"scores": rows, "examples": counts, "versions": versions()}, folder / "scores.json")


def main() -> None:
    """Make the set, run what is missing and write the table."""
    given = options(seeds=3, steps=200, jobs=1)
    seeds, steps = given["seeds"], given["steps"]
    make_set(FOLDER)
    each = [(arm, seed, steps) for seed in range(seeds) for arm in ARMS]
    missing = [one for one in each if not (folder_of(*one) / "scores.json").is_file()]
    finish(side_by_side(run, missing, given["jobs"]))
    runs = {arm: [read_json(folder_of(arm, seed, steps) / "scores.json") for seed in range(seeds)] for arm in ARMS}
    command = this_command(__file__)
    write_json({"command": command, "options": given, "study": STUDY, "runs": runs}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


def line(name: str, runs: list[dict[str, Any]], features: str) -> list[str]:
    """Percent on the random split and on held-out groups, and their gap with its interval, of both kinds of probe."""
    cells = [name]
    for metric in ("accuracy", "knn"):
        found: dict[str, list[float]] = {"held-out": [], "random": []}
        for row in (row for one in runs for row in one["scores"]):
            if (row["features"], row["metric"]) == (features, metric):
                found[row["split"]].append(100 * row["value"])
        cells += [f"{statistics.mean(found[split]):.1f}" for split in ("random", "held-out")]
        cells.append(gain_cell(gains(found["held-out"], found["random"]), 1))
    return cells


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content = read_json(JSON)
    runs, first = content["runs"], content["runs"]["alexnet"][0]
    (train_count, test_count), given = first["examples"]["held-out"], content["options"]
    rows = {"pixels": line("pixels", runs["alexnet"], "pixels")}
    for arm, kept in runs.items():  # two arms of one encoder begin alike
        encoder, _, task = arm.partition(" ")
        for name, start in {"untrained": "initial", task: "trained"}.items():
            if name:
                rows[f"{encoder}, {name}"] = line(f"{encoder}, {name}", kept, f"{start} output")
    for name, (random, held) in content["study"].items():
        rows[name] = [f"the study: {name}", f"{random}", f"{held}", f"{random - held:+.1f}", "", "", ""]
    text = (
        f"`{content['command']}`: about {train_count} training and {test_count} test frames, {given['seeds']} seeds, "
        f"{given['steps']} updates of pretraining, torch {first['versions']['torch']}.\n\n"
    )
    header = ["features", "linear: random split", "held-out groups", "gap (95 %)"]
    header += ["neighbours: random split", "held-out groups", "gap (95 %)"]
    return with_block(page, __file__, text + table(header, rows.values()))


if __name__ == "__main__":
    main()
