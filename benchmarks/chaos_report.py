"""Put the table of results/chaos.json into docs/reliability.md: `python benchmarks/chaos_report.py`."""

from pathlib import Path

from common import RESULTS, read_json, table, with_block

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"


def render_page(page: str) -> str:
    """The page with the table that `make test-chaos` left."""
    rows = read_json(RESULTS / "chaos.json")["rows"]
    counts = [(row["fault"].replace("_", " "), row["program"], row["tries"], len(row["lost"])) for row in rows]
    counts.append(("all", "", sum(row[2] for row in counts), sum(row[3] for row in counts)))
    lines = [[fault, program, str(tries), str(tries - lost), str(lost)] for fault, program, tries, lost in counts]
    return with_block(page, __file__, table(["fault", "program", "tries", "held", "lost"], lines))


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text()))
