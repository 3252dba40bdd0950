"""Does a form of DBC find the metric? Rank correlations with the exact one on a small world that is known.

    python benchmarks/bisimulation_metric.py [forms=paper,released,normed,robust,mico,rap] [slips=0.0,0.3] [seeds=4]

The world, the training and each form's options are those of tests/aux_tasks/test_dbc.py. Writes
results/bisimulation_metric.json and the block of results/dbc.md.
"""

import sys
from importlib import import_module
from typing import Any

from common import RESULTS, ROOT, options, read_json, table, this_command, with_block

from harness.process import tune_process
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "bisimulation_metric.json", RESULTS / "dbc.md"


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    content = read_json(JSON)
    header = ["form", *(f"slip {slip}" for slip in content["slips"])]
    rows = [
        [f"`{form}`", *(", ".join(f"{value:.2f}" for value in found[slip]) for slip in content["slips"])]
        for form, found in content["correlations"].items()
    ]
    text = f"`{content['command']}`, torch {content['versions']['torch']}:\n\n"
    return with_block(page, __file__, text + table(header, rows))


def main() -> None:
    """Train every form, and write the table."""
    given = options(forms="paper,released,normed,robust,mico,rap", slips="0.0,0.3", seeds=4)
    sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "aux_tasks")]
    world = import_module("test_dbc")
    tune_process(1)
    slips, found = given["slips"].split(","), dict[str, Any]()
    for form in given["forms"].split(","):
        found[form] = {}
        for slip in slips:
            learned = [world.learned_metric(float(slip), form=form, seed=seed) for seed in range(given["seeds"])]
            found[form][slip] = [world.agreement(metric, float(slip)) for metric in learned]
        print(form, found[form], flush=True)
    command = this_command(__file__)
    write_json({"command": command, "slips": slips, "correlations": found, "versions": versions()}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


if __name__ == "__main__":
    main()
