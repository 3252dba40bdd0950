"""Compare runs: differences between settings with intervals, their cost, and curves, as tables, figures and a page.

    python compare.py runs/pong
    python compare.py 'runs/pong/*/s*' baseline=aux=none out=report
    python compare.py runs/pong sb3/dqn/0.monitor.csv published=[dopamine.csv] x=steps

Arguments are run folders, folders that contain runs, patterns, reports (.json), or .csv files (step, score and perhaps
seed; or the monitor.csv of Stable-Baselines3). Runs that differ only in the seed form a group.
"""

if __name__ == "__main__":
    from experiment.launching.start import start

    start("compare", __doc__)  # before torch is imported

import logging
import shlex
import sys
from pathlib import Path

from analysis.comparison.figure import caption, write_figure
from analysis.comparison.groups import group_runs, with_baseline
from analysis.comparison.measure import Comparison, compare
from analysis.comparison.notes import notes
from analysis.comparison.output import curves_csv, groups_csv, markdown, print_tables, runs_csv
from analysis.comparison.page import html_page
from analysis.comparison.runs import Run, find_runs, read_runs
from analysis.comparison.scores_csv import read_published
from analysis.comparison.tables import tables
from analysis.comparison.tensorboard import write_groups
from configs.schema import CompareConfig
from envs.base import NO_EFFECT
from experiment.command_line.composition import freeze
from experiment.folders.next_commands import training_command
from experiment.folders.run_folder import MAY_CHANGE
from experiment.launching.launch import launch
from harness.files import replacing
from harness.progress import table_console

log = logging.getLogger("sidequest")

# Keys that do not tell groups apart: those that may change when a run continues, the seed, and how the run was watched.
IGNORED = MAY_CHANGE | {"seed", "device", "log_every", "diagnose_every", "probe_every"}
IGNORED |= {"replay.storage", "replay.path", *(f"env.{key}" for key in NO_EFFECT)}


def run(config: CompareConfig, argv: list[str]) -> int:
    """Read the runs, compare them, write and print the results; returns the exit code of the process."""
    published = [read_published(Path(path)) for path in config.published]
    groups = with_baseline(group_runs(read_runs(find_runs(config.runs)), IGNORED), config.baseline)
    comparison = compare(groups, config.x, config.metric)
    if published and len(comparison.tasks) > 1:
        raise ValueError(f"published={config.published}: of which task? compare one of {comparison.tasks} at a time")
    found = notes(comparison)
    shown = tables(comparison, found)
    out, commands = Path(config.out), reproduce(comparison, argv)
    title = f"{', '.join(comparison.tasks)}: " + ", ".join(group.label for group in groups)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "report.html": html_page(title, comparison, shown, found, published, commands),
        "comparison.md": markdown(title, shown, found, commands, caption(comparison)),
        "runs.csv": runs_csv(comparison),
        "groups.csv": groups_csv(comparison),
        "curves.csv": curves_csv(comparison),
    }.items():
        with replacing(out / name) as temporary:
            temporary.write_text(content)
    write_figure(comparison, published, out / "curves.png", out / "curves.svg")
    write_groups(comparison, out)
    print_tables(shown, found, table_console())
    log.info("%-13s %s", "report", out / "report.html")
    log.info("%-13s %s", "figure", out / "curves.png")
    log.info("%-13s %s", "tables", out / "comparison.md")
    log.info("%-13s tensorboard --logdir %s", "TensorBoard", out)
    return 0


def reproduce(comparison: Comparison, argv: list[str]) -> list[str]:
    """The commands that repeat one run of each group, and the comparison."""
    commands = []
    for group in comparison.groups:
        for runs in group.runs.values():
            seeds = ", ".join(str(each.seed) for each in runs)
            commands += [f"# {group.label}, seeds {seeds}", _command(runs[0])]
    return [*commands, "# this comparison", f"python compare.py {shlex.join(argv)}"]


def _command(run: Run) -> str:
    """The command that repeats a run, or a comment that says where its settings are."""
    if not run.config:
        return f"# a file: {run.name}"
    return training_command(run.config) or f"# the config of {run.name}"


def main(words: list[str]) -> int:
    """Run the command line; returns the exit code of the process."""
    return launch(lambda composed: run(freeze(composed.config, CompareConfig), words), "compare", words, __doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
