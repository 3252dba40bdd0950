"""Put what results/pretext_mnist.json and results/pretext_video.json hold into the tables of docs/pretexts.md:
`python benchmarks/pretext_table.py`.
"""

import json
import re
from typing import Any

from common import RESULTS, ROOT, gain_cell

PAGE = ROOT / "docs" / "pretexts.md"
MEASURES = 3  # the last columns: answered, gain, cost
UNKNOWN = ["not measured"] + [""] * (MEASURES - 1)


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a file of results; none where nothing was measured yet."""
    path = RESULTS / f"{name}.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    return rows


def measured() -> dict[str, list[str]]:
    """By objective: what it answers (and a guess), what a probe of the maps gains, its cost."""
    digits = {row["objective"]: cells(row, row["metric"], row["guess"], 1) for row in rows_of("pretext_mnist")}
    balls = {
        row["objective"]: cells(row, row["real"]["accuracy"], row["real"]["chance"], 2)
        for row in rows_of("pretext_video")
        if row["source"] == "balls" and row["real"]
    }
    return digits | balls


def cells(row: dict[str, Any], answered: float, guess: float, digits: int) -> list[str]:
    """The measured cells of an objective; `digits` are those of the gain."""
    return [f"{answered:.2f} ({guess:.2f})", gain_cell(row["maps"], digits), f"{row['cost']:.1f}"]


def main() -> None:
    """Rewrite the last cells of each line that begins with an objective."""
    found = measured()

    def filled(line: re.Match[str]) -> str:
        told = line[0].split(" | ")[:-MEASURES]
        return " | ".join([*told, *found.get(line[1], UNKNOWN)]) + " |"

    PAGE.write_text(re.sub(r"^\| `(\w+)` .*$", filled, PAGE.read_text(), flags=re.MULTILINE))


if __name__ == "__main__":
    main()
