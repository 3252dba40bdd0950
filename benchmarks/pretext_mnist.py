"""Each image task alone on MNIST: its held-out metric, and linear probes of the encoder for the digit.

    python benchmarks/pretext_mnist.py [tasks=jigsaw,simclr] [seeds=3] [steps=600] [device=auto] [jobs=1]

Pretrains and probes what is missing in runs/pretext_mnist/<task>/s<seed>, `jobs` runs at a time, then writes these
rows into results/pretext_mnist.json and the page's block; others stay. The untrained encoder of a row has the weights
that its training began with.
"""

import json
import statistics
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
    measured,
    need,
    options,
    origins,
    read_json,
    renewed,
    table,
    this_command,
    train,
    with_block,
)

from configs.schema import PretrainConfig, ProbeConfig
from experiment.pretraining.run import build_pretraining
from harness.process import tune_process
from harness.provenance import versions, write_json
from probe import probe

RUNS = ROOT / "runs" / "pretext_mnist"
JSON, PAGE = RESULTS / "pretext_mnist.json", RESULTS / "pretext_mnist.md"
BASE = ["source=idx", "source.folder=data/mnist", "encoder=small", "threads=1", "log_every=200"]
DIGITS = ["simclr", "moco", "byol", "barlow_twins", "vicreg", "exemplar"]  # views that keep a digit what it is
PATCHES = ["relative_position", "jigsaw", "cpc_image"]  # which cost an image as many passes as it has patches
TASKS = {"rotation": ["aux.rotation.options.all_rotations=true"]}  # as in its paper
TASKS |= {name: [] for name in ("counting", "denoising", "context_encoder")}
# At a larger rate its discriminator wins; short codes are found sooner.
TASKS["bigan"] = ["learning_rate=2e-4", "aux.bigan.options.latent_dim=16"]
TASKS |= {name: ["batch_size=24"] for name in PATCHES}
TASKS |= {name: [f"aux.{name}.options.views=digits"] for name in DIGITS}
HEADER = ["task", "seeds", "torch", "held-out metric", "of a guess"]
HEADER += ["conv: untrained", "trained", "difference (95 %)", "output: untrained", "trained", "difference (95 %)"]


def folder_of(task: str, seed: int) -> Path:
    """Where a run is."""
    return RUNS / task / f"s{seed}"


def words_of(task: str, seed: int) -> list[str]:
    """The command line of a pretraining, but for its length, device and folder."""
    return [f"aux={task}", f"seed={seed}", *BASE, *TASKS[task]]


def run(task: str, seed: int, steps: int, device: str) -> None:
    """Pretrain and probe."""
    folder = folder_of(task, seed)
    words = [*words_of(task, seed), f"steps={steps}", f"device={device}", f"run_dir={folder}"]
    words += [f"diagnose_every={steps}", f"checkpoint_every={steps}"]
    config = config_of("pretrain", words, PretrainConfig)
    tune_process(config.threads)
    train(config, build_pretraining(config))
    words = [f"checkpoint={folder}", f"device={device}", "threads=1", "seeds=3"]
    probe(config_of("probe", words, ProbeConfig), words)
    write_json({"steps": steps, "versions": versions()}, folder / RESULT)


def answered(folder: Path, task: str) -> tuple[float, float]:
    """The held-out metric at the end of a run and what a blind guess gets: accuracy, or else the ratio of errors."""
    last = [row for row in log_of(folder) if f"test/{task}/loss" in row][-1]
    if f"test/{task}/accuracy" in last:
        return last[f"test/{task}/accuracy"], last[f"test/{task}/chance"]
    return last[f"test/{task}/error_ratio"], 1.0


def known(folder: Path) -> dict[str, float]:
    """Accuracy of the linear probe in percent by features, mean over the subsets of examples."""
    scores = json.loads((folder / "probe-linear-idx.json").read_text())["scores"]
    kept = (s for s in scores if s["metric"] == "accuracy" and s["scaling"] == "standardised")
    return {s["features"]: 100 * s["mean"] for s in kept}


def row_of(task: str, results: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and the paired differences in points."""
    metric, guess = (statistics.mean(values) for values in zip(*(answered(f, task) for f in results), strict=True))
    row: dict[str, Any] = {"task": task, "seeds": len(results), "metric": metric, "guess": guess}
    row["torch"] = made_on(results.values())
    scores = [known(folder) for folder in results]
    row["pixels"] = statistics.mean(score["pixels"] for score in scores)
    for layer in ("maps", "output"):
        before, after = ([score[f"{when} {layer}"] for score in scores] for when in ("initial", "trained"))
        row[layer] = gains(before, after)
    return row


def cells(row: dict[str, Any]) -> list[str]:
    """A line of the table."""
    first = [row["task"], f"{row['seeds']}", row["torch"], f"{row['metric']:.3f}", f"{row['guess']:.3f}"]
    return first + gain_cells(row["maps"], 1) + gain_cells(row["output"], 1)


def main() -> None:
    """Run what is missing and write the table."""
    need("data/mnist", "make mnist")
    chosen = options(tasks=",".join(TASKS), seeds=3, steps=600, device="auto", jobs=1)
    names, steps = chosen["tasks"].split(","), chosen["steps"]
    pairs = [(name, seed) for name in names for seed in range(chosen["seeds"])]
    runs = {folder_of(*pair): (*pair, steps, chosen["device"]) for pair in pairs}
    results, failed = measured(run, runs, steps, chosen["jobs"])
    done: dict[str, dict[Path, dict[str, Any]]] = {}
    for folder, result in results.items():
        done.setdefault(folder.parent.name, {})[folder] = result
    made = f"`{this_command(__file__)}`, {steps:,} updates"
    rows = [{"made": made, **row_of(name, of_task)} for name, of_task in done.items()]
    write_json({"rows": renewed(read_json(JSON).get("rows", []), rows, TASKS)}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))
    finish(failed)


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    rows = read_json(JSON)["rows"]
    pixels = statistics.mean(row["pixels"] for row in rows)
    text = f"{origins(rows)}\nLinear probe of the raw pixels: {pixels:.1f} %.\n\n{table(HEADER, map(cells, rows))}"
    return with_block(page, __file__, text)


if __name__ == "__main__":
    main()
