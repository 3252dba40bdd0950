"""Put what results/pretext_mnist.json and results/pretext_video.json hold into the tables of docs/pretexts.md:
`python benchmarks/pretext_table.py`.
"""

import json
import re
from typing import Any

from common import RESULTS, ROOT, gain_cell

from aux_tasks import TASKS

PAGE = ROOT / "docs" / "pretexts.md"
MEASURES = 3  # the last columns: answered, gain, cost
UNKNOWN = ["not measured"] + [""] * (MEASURES - 1)


def measured() -> dict[str, list[str]]:
    """By objective: what it answers (and a guess), what a probe of the maps gains, its cost."""
    images, videos = (json.loads((RESULTS / f"pretext_{kind}.json").read_text()) for kind in ("mnist", "video"))
    digits = {row["objective"]: cells(row, row["metric"], row["guess"], 1) for row in images["rows"]}
    balls = {
        row["objective"]: cells(row, row["real"]["accuracy"], row["real"]["chance"], 2)
        for row in videos["sources"]["balls"]["rows"]
    }
    return digits | balls


def cells(row: dict[str, Any], answered: float, guess: float, digits: int) -> list[str]:
    """The measured cells of an objective; `digits` are those of the gain."""
    return [f"{answered:.2f} ({guess:.2f})", gain_cell(row["maps"], digits), f"{row['cost']:.1f}"]


def main() -> None:
    """Rewrite the last cells of each line that begins with an objective."""
    found = measured()

    def filled(line: re.Match[str]) -> str:
        if line[1] not in TASKS:
            return line[0]
        told = line[0].split(" | ")[:-MEASURES]
        return " | ".join([*told, *found.get(line[1], UNKNOWN)]) + " |"

    PAGE.write_text(re.sub(r"^\| `(\w+)` .*$", filled, PAGE.read_text(), flags=re.MULTILINE))


if __name__ == "__main__":
    main()
