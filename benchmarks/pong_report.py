"""Table and curves of finished runs: `python benchmarks/pong_report.py runs/pong/*/s0`.

Copies each run's report to results/, draws results/pong.png and writes results/pong_table.md.
"""

import json
import shutil
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

RESULTS = Path(__file__).parent.parent / "results"
SCORE = "rollout/ep_rew_mean"


def curve(run: Path) -> list[tuple[int, float]]:
    """Agent steps and the mean score of the last hundred training games."""
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [(row["step"], row[SCORE]) for row in rows if row.get(SCORE) is not None]


def minutes(run: Path) -> float:
    """Wall-clock minutes of training, summed over its restarts."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    elapsed = [event.value for event in events.Scalars("time/time_elapsed")]
    ends = [a for a, b in zip(elapsed, [*elapsed[1:], 0.0], strict=True) if b < a]
    return sum(ends) / 60


def accuracy(run: Path) -> str:
    """Accuracy of each auxiliary task over the last tenth of the run."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    names = sorted({key for row in rows for key in row if key.endswith("/accuracy")})
    means = []
    for name in names:
        values = [row[name] for row in rows if name in row]
        tail = values[-max(1, len(values) // 10) :]
        means.append(f"{name.split('/')[1]} {sum(tail) / len(tail):.2f}")
    return ", ".join(means) or "none"


def main(runs: list[Path]) -> None:
    """Write the table and the figure."""
    RESULTS.mkdir(exist_ok=True)
    figure, axes = plt.subplots(figsize=(7, 4))
    rows = []
    for run in runs:
        points, report, name = curve(run), json.loads((run / "report.json").read_text()), run.parent.name
        axes.plot([s / 1000 for s, _ in points], [score for _, score in points], label=name)
        shutil.copy(run / "report.json", RESULTS / f"pong-{name}.json")
        s = report["summary"]
        low, high = s["iqm_interval"]
        rows.append(
            f"| {name} | {s['mean']:.2f} | {s['iqm']:.2f} ({low:.2f} to {high:.2f}) "
            f"| {points[-1][0] // 1000}k | {minutes(run):.0f} | {accuracy(run)} |"
        )
    axes.set(xlabel="agent steps, thousands", ylabel="score, last 100 training games", title="Pong, one seed each")
    axes.axhline(18, color="grey", linewidth=0.5)
    axes.legend()
    figure.tight_layout()
    figure.savefig(RESULTS / "pong.png", dpi=110)
    header = "| run | mean | IQM (95 %) | steps | minutes | task accuracy (chance 0.25) |"
    text = "\n".join([header, "|" + "---|" * (header.count("|") - 1), *rows])
    (RESULTS / "pong_table.md").write_text(text + "\n")
    sys.stdout.write(text + "\n")


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
