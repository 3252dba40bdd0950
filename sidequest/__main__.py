"""The command `sidequest`: the commands at the top of the repository under one name."""

import runpy
import sys
from pathlib import Path

import harness
from harness.suggest import nearest

COMMANDS = {  # each is a script beside the packages
    "train": "train an agent from pixels, with any set of auxiliary tasks",
    "pretrain": "pretrain an encoder by auxiliary tasks alone",
    "probe": "measure what an encoder knows",
    "evaluate": "play full episodes with a trained agent, and write a report",
    "compare": "compare runs, with intervals, and write a report",
}


def main() -> int:
    """Run one command, which ends the process with its exit code; returns that of any other answer."""
    command, *words = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        lines = (f"  sidequest {name:10}{what}\n" for name, what in COMMANDS.items())
        sys.stdout.write(f"{''.join(lines)}\nsidequest COMMAND --help lists the words of a command.\n")
        return 0
    if command not in COMMANDS:
        sys.stderr.write(f"error: unknown command {command!r}: {nearest(command, COMMANDS)}\n")
        return 2
    script = str(Path(harness.__path__[0]).with_name(f"{command}.py"))
    sys.argv = [script, *words]
    runpy.run_path(script, run_name="__main__")  # not an import: a script reads its words before it loads torch
    return 0


if __name__ == "__main__":
    sys.exit(main())
