"""The study's Tables I and II: digits of MNIST classified without rotation, with it beside them, and jointly with it.

    python benchmarks/study_mnist.py [seeds=3] [steps=5000] [labels=60000] [device=auto] [jobs=1]

Trains what is missing in runs/study_mnist (run the same command again to resume), `jobs` processes side by side, then
writes results/study_mnist.json and the block of its page. Both arms begin with the same weights and see the same digits
in the same order.
"""

import json
import time
from pathlib import Path
from typing import Any

import torch
from common import (
    RESULTS,
    ROOT,
    config_of,
    finish,
    gain_cells,
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

from configs.schema import PretrainConfig, ProbeConfig
from experiment.probing.build import Probing
from experiment.probing.scores import draw, score_trained
from harness.process import tune_process
from harness.progress import Meter
from harness.provenance import versions, write_json

RUNS = ROOT / "runs" / "study_mnist"
JSON, PAGE = RESULTS / "study_mnist.json", RESULTS / "study_mnist.md"
ROTATION = ["aux=rotation", "aux.rotation.options.hidden=0"]
ARMS = {
    "without": ["mode=finetune"],
    "with": ["mode=joint", *ROTATION],
    "joint label": ["mode=label_augmentation", *ROTATION],
}
SHARED = ["checkpoint=none", "labels=[class]", "test_labels=10000", "batch_size=128"]
STUDY = {"without": 99.19, "with": 98.45}  # test accuracy over all digits, percent
DIGITS = ["accuracy", *(f"accuracy/{digit}" for digit in range(10))]


def file_of(arm: str, seed: int, steps: int, labels: int) -> Path:
    """Where the scores of a finished training are."""
    return RUNS / f"{steps}-steps-{labels}-labels" / arm / f"s{seed}.json"


def untrained(seed: int, device: str) -> Probing:
    """MNIST with its own split, and a network of the study's that has seen none of it."""
    words = ["source=idx", "source.folder=data/mnist", "encoder=study_digits", "aux=rotation", f"seed={seed}"]
    return untrained_probing(config_of("pretrain", [*words, f"device={device}"], PretrainConfig))


def run(arm: str, seed: int, steps: int, labels: int, device: str) -> None:
    """Train one classifier and keep its scores."""
    tune_process(1)
    words = [*SHARED, *ARMS[arm], f"steps={steps}", f"train_labels={labels}", f"device={device}"]
    config, parts = config_of("probe", words, ProbeConfig), untrained(seed, device)
    drawn, start = draw(config, parts, "held-out", seed), time.perf_counter()
    scores = {row.metric: value for row, value in score_trained(config, parts, drawn, Meter("update", steps))}
    machine = torch.cuda.get_device_name() if parts.sampler.device.type == "cuda" else "CPU, one thread"
    kept = {"arm": arm, "seed": seed, "train": len(drawn.train), "test": len(drawn.test), "device": machine}
    path = file_of(arm, seed, steps, labels)
    write_json(kept | {"seconds": time.perf_counter() - start, "scores": scores, "versions": versions()}, path)
    print(f"{arm} rotation, seed {seed}: {scores['accuracy']:.4f}", flush=True)


def row_of(metric: str, runs: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Percent of each arm by seed."""
    return {"metric": metric} | {arm: [100 * run["scores"][metric] for run in found] for arm, found in runs.items()}


def cells(row: dict[str, Any], arms: list[str]) -> list[str]:
    """A line of the table: the first arm, and the others with their paired differences from it in points."""
    name = row["metric"].removeprefix("accuracy/").replace("accuracy", "all")
    compared = [gain_cells(gains(row["without"], row[arm]), 2) for arm in arms]
    return [name, compared[0][0], *(cell for each in compared for cell in each[1:])]


def main() -> None:
    """Train what is missing and write the table."""
    given = options(seeds=3, steps=5000, labels=60_000, device="auto", jobs=1)
    need("data/mnist", "make mnist")
    seeds, steps, labels = (given[key] for key in ("seeds", "steps", "labels"))
    each = [(arm, seed, steps, labels) for seed in range(seeds) for arm in ARMS]
    missing = [(*one, given["device"]) for one in each if not file_of(*one).is_file()]
    finish(side_by_side(run, missing, given["jobs"]))
    runs = {arm: [json.loads(file_of(arm, s, steps, labels).read_text()) for s in range(seeds)] for arm in ARMS}
    rows = [row_of(metric, runs) for metric in DIGITS]
    command = this_command(__file__)
    content = {"command": command, "options": given, "study": STUDY, "rows": rows, "runs": runs}
    write_json(read_json(JSON) | {f"{steps:,} updates, {labels:,} labels": content}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    text = ""
    for title, content in read_json(JSON).items():
        given, study, one = content["options"], content["study"], content["runs"]["with"][0]
        arms = [arm for arm in ARMS if arm in content["runs"]][1:]
        header = ["digit", "without rotation"]
        header += [cell for arm in arms for cell in (f"{arm} rotation", "difference (95 %)")]
        theirs = [
            "all, the study",
            *(f"{score}" for score in study.values()),
            f"{study['with'] - study['without']:+.2f}",
        ]
        theirs += [""] * (len(header) - len(theirs))
        text += (
            f"### {title}\n\n`{content['command']}`: batches of 128, {one['train']:,} labelled digits, {one['test']:,} "
            f"official test digits, {given['seeds']} seeds, {one['device']}, torch {one['versions']['torch']}.\n\n"
        )
        text += table(header, [*(cells(row, arms) for row in content["rows"]), theirs]) + "\n"
    return with_block(page, __file__, text)


if __name__ == "__main__":
    main()
