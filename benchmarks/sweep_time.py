"""Wall clock of a sweep: 12 runs of Catch at once on the cores there are, beside one after another.

    python benchmarks/sweep_time.py steps=4000

Writes results/sweep_time.json and the block in results/speed.md. Both parts run the same 12 commands from nothing; the
first starts them in turn, each with all cores, as a shell loop would.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from common import RESULTS, ROOT, log_of, options, read_json, table, with_block

from harness.process import available_cores
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "sweep_time.json", RESULTS / "speed.md"
ARMS, SEEDS = ("none", "rotation", "permutation"), range(4)


def timed(folder: str, words: Sequence[str]) -> float:
    """Seconds of a training, or of a sweep of them."""
    begun = time.perf_counter()
    command = [sys.executable, str(ROOT / "train.py"), *words]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    return time.perf_counter() - begun


def main() -> None:
    """Measure both, and write the block."""
    given = options(steps=4_000)
    words = ["experiment=demo", f"steps={given['steps']}", "eval_episodes=0", "diagnose_every=0"]
    with TemporaryDirectory() as folder:
        alone = [timed(folder, [*words, f"aux={arm}", f"seed={seed}"]) for arm in ARMS for seed in SEEDS]
        learning = [log_of(log.parent)[-1]["clock"]["seconds"] for log in Path(folder).rglob("metrics.jsonl")]
    with TemporaryDirectory() as folder:
        arms, seeds = (",".join(map(str, values)) for values in (ARMS, SEEDS))
        together = timed(folder, ["-m", *words, f"aux={arms}", f"seed={seeds}"])
    content = {"steps": given["steps"], "cores": available_cores(), "alone": alone, "learning": learning}
    write_json(content | {"together": together, "versions": versions()}, JSON)
    PAGE.write_text(render_page(PAGE.read_text()))


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    found = read_json(JSON)
    one_by_one, together = sum(found["alone"]), found["together"]
    rows = [
        ["one after another, each with all cores", f"{one_by_one:.0f}", "1"],
        ["of these, in the training loop", f"{sum(found['learning']):.0f}", ""],
        [
            f"`train.py -m`, {found['cores']} at a time with one thread each",
            f"{together:.0f}",
            f"{one_by_one / together:.2f}",
        ],
    ]
    told = (
        f"`python benchmarks/sweep_time.py steps={found['steps']}`: 12 runs of `experiment=demo` "
        f"({', '.join(ARMS)}; four seeds), {found['cores']} cores, {found['versions']['cpu']}, median of a run alone "
        f"{statistics.median(found['alone']):.1f} s.\n\n"
    )
    return with_block(page, __file__, told + table(["12 runs", "seconds", "times as fast"], rows))


if __name__ == "__main__":
    main()
