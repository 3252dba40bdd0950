"""The command `sidequest`: the commands at the top of the repository under one name."""

import sys
from importlib import import_module

from harness.suggest import nearest

COMMANDS = {  # each is a module with `main(words) -> exit code`
    "train": "train an agent from pixels, with any set of auxiliary tasks",
    "pretrain": "pretrain an encoder by auxiliary tasks alone",
    "probe": "measure what an encoder knows",
    "evaluate": "play full episodes with a trained agent, and write a report",
}


def main() -> int:
    """Run one command; returns the exit code of the process."""
    command, *words = sys.argv[1:] or ["--help"]
    if command in ("--help", "-h"):
        lines = (f"  sidequest {name:10}{what}\n" for name, what in COMMANDS.items())
        sys.stdout.write(f"{''.join(lines)}\nsidequest COMMAND --help lists the words of a command.\n")
        return 0
    if command not in COMMANDS:
        sys.stderr.write(f"error: unknown command {command!r}: {nearest(command, COMMANDS)}\n")
        return 2
    exit_code: int = import_module(f"sidequest.{command}").main(words)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
