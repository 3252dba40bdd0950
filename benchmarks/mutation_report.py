"""Put results/mutation-before.json and results/mutation.json into the page: `python benchmarks/mutation_report.py`."""

from common import RESULTS, read_json, table, with_block

PAGE = RESULTS / "mutation.md"
TREES = {"before": RESULTS / "mutation-before.json", "now": RESULTS / "mutation.json"}
COUNTS = ["mutants", "killed", "timeout", "survived", "not covered"]


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    found = {name: content for name, path in TREES.items() if (content := read_json(path))}
    text = "".join(f"- {name}: `{content['command']}`, {content['tool']}\n" for name, content in found.items())
    lines = [
        [
            package,
            name,
            *(str(row[count]) for count in COUNTS),
            f"{row['found']:.2f}",
            "{:.2f} to {:.2f}".format(*row["interval"]),
        ]
        for package in next(iter(found.values()))["packages"]
        for name, content in found.items()
        if (row := content["packages"].get(package))
    ]
    text += "\n" + table(["package", "tree", *COUNTS, "found", "95 %"], lines)
    for name, content in found.items():
        left = [change for row in content["packages"].values() for change in row["survivors"]]
        text += f"\nNot found, {name}:\n\n" + "".join(f"- `` {change} ``\n" for change in left)
    return with_block(page, __file__, text)


if __name__ == "__main__":
    PAGE.write_text(render_page(PAGE.read_text()))
