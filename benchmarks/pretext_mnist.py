"""Each image objective alone on MNIST: is its question answered, and what does the encoder know of digits?

    python benchmarks/pretext_mnist.py [objectives=jigsaw,simclr] [seeds=3] [steps=600] [threads=1]

Pretrains and probes what is missing in runs/pretext_mnist/<objective>/s<seed> (again to continue), then writes
results/pretext_mnist.md and .json. The untrained encoder of a row has the weights that its training began with.
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from configs.schema import PretrainConfig, ProbeConfig, freeze, register
from harness.probes import interval
from pretrain import pretrain
from probe import probe

ROOT = Path(__file__).parent.parent
RESULTS, RUNS = ROOT / "results", ROOT / "runs" / "pretext_mnist"
BASE = [
    "source=idx",
    "source.folder=data/mnist",
    "encoder=small",
    "device=cpu",
    "log_every=100",
    "checkpoint_every=300",
]
DIGITS = ["simclr", "moco", "byol", "barlow_twins", "vicreg", "exemplar"]  # views that keep a digit what it is
PATCHES = ["relative_position", "jigsaw", "cpc_image"]  # which cost an image as many passes as it has patches
OBJECTIVES = {name: list[str]() for name in ("rotation", "counting", "denoising", "context_encoder", "bigan")}
OBJECTIVES |= {name: ["batch_size=24"] for name in PATCHES}
OBJECTIVES |= {name: [f"aux.{name}.options.views=digits"] for name in DIGITS}
# `colorization` and `split_brain` need colour.
HEADER = (
    "| objective | held-out metric | of a guess | conv: untrained | trained | difference (95 %) "
    "| output: untrained | trained | difference (95 %) |"
)


def config_of(name: str, words: list[str], kind: Any) -> Any:
    """The frozen config of a command line."""
    with initialize_config_dir(str(ROOT / "configs"), version_base=None):
        return freeze(compose(name, words), kind)


def run(objective: str, seed: int, steps: int, threads: int) -> Path:
    """The folder of a finished and probed run, made if it is not there."""
    folder = RUNS / objective / f"s{seed}"
    if not (folder / "probe-linear-idx.json").is_file():
        words = [f"aux={objective}", f"seed={seed}", f"steps={steps}", f"threads={threads}", f"run_dir={folder}"]
        if pretrain(config_of("pretrain", BASE + words + OBJECTIVES[objective], PretrainConfig)):
            sys.exit("interrupted: the same command continues")
        words = [f"checkpoint={folder}", f"threads={threads}", "seeds=3"]
        probe(config_of("probe", words, ProbeConfig), words)
    return folder


def answered(folder: Path, objective: str) -> tuple[float, float]:
    """The held-out metric at the end of a run and what a blind guess gets: accuracy, or the ratio of errors."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if f"test/{objective}/loss" in row][-1]
    ratio = last.get(f"test/{objective}/error_ratio")
    return (
        (ratio, 1.0) if ratio is not None else tuple(last[f"test/{objective}/{key}"] for key in ("accuracy", "chance"))
    )


def known(folder: Path) -> dict[str, float]:
    """Accuracy of the linear probe by features, mean over the subsets of examples."""
    scores = json.loads((folder / "probe-linear-idx.json").read_text())["scores"]
    return {s["features"]: s["mean"] for s in scores if s["metric"] == "accuracy" and s["scaling"] == "standardised"}


def row_of(objective: str, folders: list[Path]) -> dict[str, Any]:
    """Means over the seeds, and 95 % t intervals of the paired differences in points."""
    metric, guess = (statistics.mean(values) for values in zip(*(answered(f, objective) for f in folders), strict=True))
    row: dict[str, Any] = {"objective": objective, "seeds": len(folders), "metric": metric, "guess": guess}
    scores = [known(folder) for folder in folders]
    row["pixels"] = statistics.mean(score["pixels"] for score in scores)
    for layer in ("maps", "output"):
        before, after = ([100 * score[f"{when} {layer}"] for score in scores] for when in ("initial", "trained"))
        gains = [b - a for a, b in zip(before, after, strict=True)]
        ends = interval(gains)
        half = (ends[1] - ends[0]) / 2 if ends else None
        row[layer] = [statistics.mean(before), statistics.mean(after), statistics.mean(gains), half]
    return row


def shown(row: dict[str, Any]) -> str:
    """A line of the table."""
    cells = [row["objective"], f"{row['metric']:.3f}", f"{row['guess']:.3f}"]
    for layer in ("maps", "output"):
        before, after, gain, half = row[layer]
        cells += [f"{before:.1f}", f"{after:.1f}", f"{gain:+.1f}" + (f" ± {half:.1f}" if half is not None else "")]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Run what is missing and write the table."""
    register()
    options = dict(word.split("=") for word in sys.argv[1:])
    names = options.get("objectives", ",".join(OBJECTIVES)).split(",")
    seeds, steps, threads = (
        int(options.get(key, value)) for key, value in (("seeds", 3), ("steps", 600), ("threads", 0))
    )
    rows = [row_of(name, [run(name, seed, steps, threads) for seed in range(seeds)]) for name in names]
    (RESULTS / "pretext_mnist.json").write_text(json.dumps(rows, indent=1) + "\n")
    pixels = 100 * statistics.mean(row["pixels"] for row in rows)
    text = (
        f"# Image objectives on MNIST\n\n`python benchmarks/pretext_mnist.py seeds={seeds} steps={steps}`: encoder "
        f"`small`, {steps} updates of 64 digits (24 where they are cut to patches), {seeds} seeds. Linear probe with "
        f"1,000 labels on 2,000 official test digits, accuracy in percent; raw pixels {pixels:.1f}. The metric is "
        "accuracy, or, where the guess is 1.000, the error over that of the trivial answer.\n\n"
    )
    table = [HEADER, "|---" * (HEADER.count("|") - 1) + "|", *map(shown, rows)]
    (RESULTS / "pretext_mnist.md").write_text(text + "\n".join(table) + "\n")


if __name__ == "__main__":
    main()
