"""The command `sidequest`: the commands at the top of the repository under one name."""

import runpy
import sys

from harness.suggest import nearest

COMMANDS = {  # each is a script at the top of the repository
    "train": "train an agent from pixels, with any set of auxiliary tasks",
    "pretrain": "pretrain an encoder by auxiliary tasks alone",
    "probe": "measure what an encoder knows",
    "evaluate": "play full episodes with a trained agent, and write a report",
    "compare": "compare runs: which setting is better, by how much, and how sure that is",
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
    sys.argv[1:] = words
    # Not imported but run: a script reads its words before it loads torch.
    runpy.run_module(f"sidequest.{command}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
