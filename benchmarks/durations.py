"""How long each preset takes, from its rate once it learns.

    python benchmarks/durations.py [presets=pong_cpu,sac_cartpole] [seconds=40]

Each preset trains in a temporary folder, on one CPU thread, until it has learned for so many seconds. They are seconds
of CPU time: other programs on the same cores change them little. Writes these rows into results/durations.json and the
block of its page; others stay.
"""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil
from common import RESULTS, ROOT, config_of, options, origins, read_json, renewed, table, this_command, with_block

from configs.schema import Config
from experiment.training.run import Progress
from harness.metrics import read_rows
from harness.progress import short
from harness.provenance import versions, write_json

JSON, PAGE = RESULTS / "durations.json", RESULTS / "durations.md"
NAMES = sorted(path.stem for path in (ROOT / "configs" / "experiment").glob("*.yaml"))
PRESETS = [name for name in NAMES if not name.startswith("pretrain")]
SOON = 200  # steps before learning begins, in place of the preset's
HEADER = ["preset", "agent steps", "updates", "steps/s before it learns", "steps/s", "time", "load of the machine"]


def measure(preset: str, seconds: int) -> dict[str, Any]:
    """Steps a second of a preset before and after learning begins, and how long all of its steps take."""
    words = [f"experiment={preset}", "device=cpu", "replay.storage=ram", "threads=1"]
    config = config_of("config", words, Config)
    often = ["log_every=10", "diagnose_every=0", f"learning_starts={SOON}", "checkpoint_every=1000000"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "train.py"), *words, *often, f"run_dir={folder}/run"]
        with Path(folder, "stderr").open("w") as output:
            run = psutil.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=output)
        try:
            seen = watch(run, Path(folder), seconds)
        finally:
            if run.poll() is None:
                run.kill()
            run.wait()
    before, after = rate([one for one in seen if not one.updates]), rate([one for one in seen if one.updates][1:])
    starts = min(config.learning_starts, config.steps)
    return {
        "task": preset,
        "steps": config.steps,
        "updates": Progress().updates_due(config, at=config.steps),
        "before": before,
        "after": after,
        "seconds": starts / before + (config.steps - starts) / after,
        "load": os.getloadavg()[0],
    }


class Seen(NamedTuple):
    """A moment of a run."""

    step: int
    updates: int
    seconds: float  # of CPU time


def watch(run: psutil.Popen, folder: Path, seconds: int) -> list[Seen]:
    """A run each time its log grows, until it has learned for so many seconds."""
    seen, path = list[Seen](), folder / "run" / "metrics.jsonl"
    while run.poll() is None:
        time.sleep(0.05)
        used = sum(run.cpu_times()[:2])
        rows = read_rows(path)[0] if path.exists() else []
        if rows and (row := rows[-1])["step"] > (seen[-1].step if seen else 0):
            seen.append(Seen(row["step"], row["clock"]["updates"], used))
            learned = [one for one in seen if one.updates]
            if len(learned) > 2 and learned[-1].seconds - learned[1].seconds >= seconds:  # the first update allocates
                return seen
    said = (folder / "stderr").read_text().splitlines()
    sys.exit(f"{shlex.join(run.args)} ended: {said[-1] if said else 'it said nothing'}")


def rate(seen: list[Seen]) -> float:
    """Agent steps a second between the first moment and the last."""
    return (seen[-1].step - seen[0].step) / (seen[-1].seconds - seen[0].seconds)


def render_page(page: str) -> str:
    """The page with the block that the JSON of results gives."""
    rows = read_json(JSON)["rows"]
    lines = [
        [
            f"`experiment={row['task']}`",
            *(f"{row[key]:,}" for key in ("steps", "updates")),
            *(short(row[key]) for key in ("before", "after")),
            f"{row['seconds'] / 3600:.1f} h" if row["seconds"] > 2 * 3600 else f"{row['seconds'] / 60:.0f} min",
            f"{row['load']:.1f}",
        ]
        for row in rows
    ]
    return with_block(page, __file__, f"{origins(rows)}\n{table(HEADER, lines)}")


def main() -> None:
    """Measure and write the table."""
    given, used = options(presets=",".join(PRESETS), seconds=40), versions()
    command = this_command(__file__)
    for preset in given["presets"].split(","):
        row = measure(preset, given["seconds"])
        row["made"] = f"`{command}`, one thread of {os.cpu_count()} cores, {used['cpu']}, torch {used['torch']}"
        write_json({"rows": renewed(read_json(JSON).get("rows", []), [row], PRESETS)}, JSON)
        print(preset, f"{row['after']:.1f} steps/s", flush=True)
    PAGE.write_text(render_page(PAGE.read_text()))


if __name__ == "__main__":
    main()
