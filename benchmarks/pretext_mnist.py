"""Each image objective alone on MNIST: is its question answered, and what does the encoder know of digits?

    python benchmarks/pretext_mnist.py [objectives=jigsaw,simclr] [seeds=3] [steps=600] [device=auto] [jobs=1]

Pretrains and probes what is missing in runs/pretext_mnist/<objective>/s<seed>, `jobs` runs at a time, then writes
results/pretext_mnist.md and .json. The untrained encoder of a row has the weights that its training began with.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from common import (
    RESULT,
    RESULTS,
    ROOT,
    config_of,
    cost,
    finish,
    gain_cells,
    gains,
    log_of,
    options,
    result_of,
    side_by_side,
    step_cost,
    table,
    train,
)

from configs.pretraining import build_pretraining
from configs.schema import PretrainConfig, ProbeConfig
from harness.process import tune_process
from harness.provenance import versions, write_json
from probe import probe

RUNS = ROOT / "runs" / "pretext_mnist"
BASE = ["source=idx", "source.folder=data/mnist", "encoder=small", "threads=1", "log_every=200"]
DIGITS = ["simclr", "moco", "byol", "barlow_twins", "vicreg", "exemplar"]  # views that keep a digit what it is
PATCHES = ["relative_position", "jigsaw", "cpc_image"]  # which cost an image as many passes as it has patches
OBJECTIVES = {name: list[str]() for name in ("rotation", "counting", "denoising", "context_encoder")}
OBJECTIVES["bigan"] = ["learning_rate=2e-4"]  # at more its discriminator wins
OBJECTIVES |= {name: ["batch_size=24"] for name in PATCHES}
OBJECTIVES |= {name: [f"aux.{name}.options.views=digits"] for name in DIGITS}
# `colorization` and `split_brain` need colour.
HEADER = ["objective", "seeds", "held-out metric", "of a guess", "cost in supervised steps"]
HEADER += ["conv: untrained", "trained", "difference (95 %)", "output: untrained", "trained", "difference (95 %)"]


def folder_of(objective: str, seed: int) -> Path:
    """Where a run is."""
    return RUNS / objective / f"s{seed}"


def run(objective: str, seed: int, steps: int, device: str) -> None:
    """Pretrain and probe."""
    folder = folder_of(objective, seed)
    words = [f"aux={objective}", f"seed={seed}", f"steps={steps}", f"device={device}", f"run_dir={folder}"]
    words += [f"diagnose_every={steps}", f"checkpoint_every={steps}", *BASE, *OBJECTIVES[objective]]
    config = config_of("pretrain", words, PretrainConfig)
    tune_process(config.threads)
    parts = build_pretraining(config)
    train(config, parts)
    result = {"steps": steps, "cost": step_cost(config, parts)}
    words = [f"checkpoint={folder}", f"device={device}", "threads=1", "seeds=3"]
    probe(config_of("probe", words, ProbeConfig), words)
    write_json(result | {"versions": versions()}, folder / RESULT)


def answered(folder: Path, objective: str) -> tuple[float, float]:
    """The held-out metric at the end of a run and what a blind guess gets: accuracy, or the ratio of errors."""
    last = [row for row in log_of(folder) if f"test/{objective}/loss" in row][-1]
    ratio = last.get(f"test/{objective}/error_ratio")
    return (
        (ratio, 1.0) if ratio is not None else tuple(last[f"test/{objective}/{key}"] for key in ("accuracy", "chance"))
    )


def known(folder: Path) -> dict[str, float]:
    """Accuracy of the linear probe in percent by features, mean over the subsets of examples."""
    scores = json.loads((folder / "probe-linear-idx.json").read_text())["scores"]
    kept = (s for s in scores if s["metric"] == "accuracy" and s["scaling"] == "standardised")
    return {s["features"]: 100 * s["mean"] for s in kept}


def row_of(objective: str, results: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the paired differences in points."""
    metric, guess = (statistics.mean(values) for values in zip(*(answered(f, objective) for f in results), strict=True))
    row: dict[str, Any] = {"objective": objective, "seeds": len(results), "metric": metric, "guess": guess}
    row["cost"] = cost(list(results.values()))
    scores = [known(folder) for folder in results]
    row["pixels"] = statistics.mean(score["pixels"] for score in scores)
    for layer in ("maps", "output"):
        before, after = ([score[f"{when} {layer}"] for score in scores] for when in ("initial", "trained"))
        row[layer] = gains(before, after)
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    first = [row["objective"], f"{row['seeds']}", f"{row['metric']:.3f}", f"{row['guess']:.3f}", f"{row['cost']:.1f}"]
    return first + gain_cells(row["maps"], 1) + gain_cells(row["output"], 1)


def main() -> None:
    """Run what is missing and write the table."""
    chosen = options(objectives=",".join(OBJECTIVES), seeds=3, steps=600, device="auto", jobs=1)
    names, steps = chosen["objectives"].split(","), chosen["steps"]
    pairs = [(name, seed) for name in names for seed in range(chosen["seeds"])]
    missing = [(*pair, steps, chosen["device"]) for pair in pairs if not result_of(folder_of(*pair), steps)]
    failed = side_by_side(run, missing, chosen["jobs"])
    done: dict[str, dict[Path, dict[str, Any]]] = {}
    for name, seed in pairs:
        if result := result_of(folder := folder_of(name, seed), steps):
            done.setdefault(name, {})[folder] = result
    rows = [row_of(name, results) for name, results in done.items()]
    if rows:
        write(rows, " ".join(["python", *sys.argv]), steps)
    finish(failed)


def write(rows: list[dict[str, Any]], command: str, steps: int) -> None:
    """Both files of results."""
    report = {"command": command, "steps": steps, "versions": versions(), "rows": rows}
    write_json(report, RESULTS / "pretext_mnist.json")
    pixels = statistics.mean(row["pixels"] for row in rows)
    text = (
        f"# Image objectives on MNIST\n\n`{command}`: encoder `small`, {steps} updates of 64 digits (24 where they are "
        f"cut to patches), torch {versions()['torch']}. Linear probe with 1,000 labels on 2,000 "
        f"official test digits, accuracy in percent; raw pixels {pixels:.1f}. The metric is accuracy, or, where the "
        "guess is 1.000, the error over that of the trivial answer. A supervised step is cross-entropy with the same "
        "encoder and batch, timed in alternation.\n\n"
    )
    (RESULTS / "pretext_mnist.md").write_text(text + table(HEADER, map(cells, rows)))


if __name__ == "__main__":
    main()
