"""Each image objective alone on MNIST: is its question answered, and what does the encoder know of digits?

    python benchmarks/pretext_mnist.py [objectives=jigsaw,simclr] [seeds=3] [steps=600] [device=auto] [jobs=1]

Pretrains and probes what is missing in runs/pretext_mnist/<objective>/s<seed>, `jobs` runs at a time, then writes these
rows into results/pretext_mnist.md and .json; others stay. The untrained encoder of a row has the weights that its
training began with.
"""

import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from common import (
    RESULT,
    RESULTS,
    ROOT,
    config_of,
    finish,
    gain_cells,
    gains,
    log_of,
    made_on,
    options,
    origins,
    renewed,
    result_of,
    rows_in,
    side_by_side,
    table,
    train,
)

from configs.schema import PretrainConfig, ProbeConfig
from experiment.pretraining import build_pretraining
from harness.process import tune_process
from harness.provenance import versions, write_json
from probe import probe

RUNS = ROOT / "runs" / "pretext_mnist"
BASE = ["source=idx", "source.folder=data/mnist", "encoder=small", "threads=1", "log_every=200"]
DIGITS = ["simclr", "moco", "byol", "barlow_twins", "vicreg", "exemplar"]  # views that keep a digit what it is
PATCHES = ["relative_position", "jigsaw", "cpc_image"]  # which cost an image as many passes as it has patches
OBJECTIVES = {"rotation": ["aux.rotation.options.all_rotations=true"]}  # as in its paper
OBJECTIVES |= {name: [] for name in ("counting", "denoising", "context_encoder")}
# At a larger rate its discriminator wins; short codes are found sooner.
OBJECTIVES["bigan"] = ["learning_rate=2e-4", "aux.bigan.options.latent_dim=16"]
OBJECTIVES |= {name: ["batch_size=24"] for name in PATCHES}
OBJECTIVES |= {name: [f"aux.{name}.options.views=digits"] for name in DIGITS}
WITHOUT_GAIN = {  # what the runs show of why
    "jigsaw": "answered by nearly all; strokes that go on from tile to tile are enough for that.",
    "relative_position": "patches of a digit are mostly black, and hard to tell apart.",
    "bigan": "a slow game: it finds images again by their codes, and in so few updates teaches nothing else.",
}
HEADER = ["objective", "seeds", "torch", "held-out metric", "of a guess"]
HEADER += ["conv: untrained", "trained", "difference (95 %)", "output: untrained", "trained", "difference (95 %)"]


def folder_of(objective: str, seed: int) -> Path:
    """Where a run is."""
    return RUNS / objective / f"s{seed}"


def words_of(objective: str, seed: int) -> list[str]:
    """The command line of a pretraining, but for its length, device and folder."""
    return [f"aux={objective}", f"seed={seed}", *BASE, *OBJECTIVES[objective]]


def run(objective: str, seed: int, steps: int, device: str) -> None:
    """Pretrain and probe."""
    folder = folder_of(objective, seed)
    words = [*words_of(objective, seed), f"steps={steps}", f"device={device}", f"run_dir={folder}"]
    words += [f"diagnose_every={steps}", f"checkpoint_every={steps}"]
    config = config_of("pretrain", words, PretrainConfig)
    tune_process(config.threads)
    train(config, build_pretraining(config))
    words = [f"checkpoint={folder}", f"device={device}", "threads=1", "seeds=3"]
    probe(config_of("probe", words, ProbeConfig), words)
    write_json({"steps": steps, "versions": versions()}, folder / RESULT)


def answered(folder: Path, objective: str) -> tuple[float, float]:
    """The held-out metric at the end of a run and what a blind guess gets: accuracy, or else the ratio of errors."""
    last = [row for row in log_of(folder) if f"test/{objective}/loss" in row][-1]
    if f"test/{objective}/accuracy" in last:
        return last[f"test/{objective}/accuracy"], last[f"test/{objective}/chance"]
    return last[f"test/{objective}/error_ratio"], 1.0


def known(folder: Path) -> dict[str, float]:
    """Accuracy of the linear probe in percent by features, mean over the subsets of examples."""
    scores = json.loads((folder / "probe-linear-idx.json").read_text())["scores"]
    kept = (s for s in scores if s["metric"] == "accuracy" and s["scaling"] == "standardised")
    return {s["features"]: 100 * s["mean"] for s in kept}


def row_of(objective: str, results: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the paired differences in points."""
    metric, guess = (statistics.mean(values) for values in zip(*(answered(f, objective) for f in results), strict=True))
    row: dict[str, Any] = {"objective": objective, "seeds": len(results), "metric": metric, "guess": guess}
    row["torch"] = made_on(results.values())
    scores = [known(folder) for folder in results]
    row["pixels"] = statistics.mean(score["pixels"] for score in scores)
    for layer in ("maps", "output"):
        before, after = ([score[f"{when} {layer}"] for score in scores] for when in ("initial", "trained"))
        row[layer] = gains(before, after)
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    first = [row["objective"], f"{row['seeds']}", row["torch"], f"{row['metric']:.3f}", f"{row['guess']:.3f}"]
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
    made = f"`{shlex.join(['python', *sys.argv])}`, {steps:,} updates"
    rows = [{"made": made, **row_of(name, results)} for name, results in done.items()]
    write(renewed(rows_in(RESULTS / "pretext_mnist.json"), rows, OBJECTIVES))
    finish(failed)


def write(rows: list[dict[str, Any]]) -> None:
    """Both files of results."""
    write_json({"rows": rows}, RESULTS / "pretext_mnist.json")
    pixels = statistics.mean(row["pixels"] for row in rows)
    text = (
        f"# Image objectives on MNIST\n\n{origins(rows)}\nEncoder `small`, updates of 64 digits (24 where they are "
        "cut to patches); the column torch tells which runs were made on a GPU (cu, an H100). Linear probe with 1,000 "
        f"labels on 2,000 official test digits, accuracy in percent; raw pixels {pixels:.1f}. The metric is accuracy, "
        "or, where the guess is 1.000, the error over that of the trivial answer.\n\n"
    )
    without = [row["objective"] for row in rows if row["maps"]["interval"] and row["maps"]["interval"][0] <= 0]
    reasons = [f"- `{name}`: {WITHOUT_GAIN.get(name, 'why is not known.')}\n" for name in without]
    closing = "\nNot better than the untrained encoder at the convolutions beyond the interval:\n\n" if reasons else ""
    colour = "\n`colorization` and `split_brain` need colour: [pretext_video.md](pretext_video.md).\n"
    page = text + table(HEADER, map(cells, rows)) + closing + "".join(reasons) + colour
    (RESULTS / "pretext_mnist.md").write_text(page)


if __name__ == "__main__":
    main()
