"""Put what results/pretext_{mnist,video,cost}.json hold into the tables of results/pretexts.md, and draw the gains:
`python benchmarks/pretext_table.py`.
"""

import json
import re
from typing import Any

import matplotlib.pyplot as plt
from common import RESULTS, gain_cell

PAGE = RESULTS / "pretexts.md"
COLUMNS, MEASURED = 4, 3  # of the tables of tasks; the last are metric, gain and cost
UNKNOWN = ["not measured", ""]


def read(name: str) -> Any:
    """A page's figures."""
    return json.loads((RESULTS / f"pretext_{name}.json").read_text())


def measured() -> dict[str, list[str]]:
    """By task: metric (and that of a guess), gain of a probe of the maps, cost of an update."""
    costs = {row["task"]: f"{row['ratio']:.1f}" for row in read("cost")["rows"]}
    told = {row["task"]: (row["metric"], row["guess"], gain_cell(row["maps"], 1)) for row in read("mnist")["rows"]}
    for row in read("video")["sources"]["balls"]:
        real = row["real"]
        answered = (real["accuracy"], real["chance"]) if "accuracy" in real else (real["error_ratio"], 1.0)
        told[row["task"]] = (*answered, gain_cell(row["maps"], 2))
    cells = {name: [f"{metric:.2f} ({guess:.2f})", gain] for name, (metric, guess, gain) in told.items()}
    return {name: [*cells.get(name, UNKNOWN), cost] for name, cost in costs.items()}


def render_page(page: str) -> str:
    """The page with the measured cells of each line that begins with a task."""
    found = measured()

    def filled(line: re.Match[str]) -> str:
        told = line[0].split(" | ")
        if len(told) != COLUMNS or line[1] not in found:
            return line[0]
        return " | ".join([*told[:-MEASURED], *found[line[1]]]) + " |"

    return re.sub(r"^\| `(\w+)` .*$", filled, page, flags=re.MULTILINE)


def draw() -> None:
    """Gain of a probe over the untrained encoder, a bar for each task, with its interval where there are seeds."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.5))
    sources = {
        "images: points of accuracy on MNIST": read("mnist")["rows"],
        "video: R2 of the balls' positions (one seed)": read("video")["sources"]["balls"],
    }
    for axes, (title, rows) in zip(panels, sources.items(), strict=True):
        shown = sorted(rows, key=lambda row: float(row["maps"]["gain"]))
        gains = [row["maps"]["gain"] for row in shown]
        bounds = [row["maps"]["interval"] or (gain, gain) for row, gain in zip(shown, gains, strict=True)]
        halves = [(high - low) / 2 for low, high in bounds]
        axes.barh([row["task"] for row in shown], gains, xerr=halves, color="#7986cb", ecolor="#455a64", capsize=2)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(title=title, xlabel="gain over the untrained encoder")
    figure.tight_layout()
    figure.savefig(RESULTS / "pretexts.png", dpi=110)


if __name__ == "__main__":
    draw()
    PAGE.write_text(render_page(PAGE.read_text()))
