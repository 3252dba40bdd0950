"""What a command does before it imports torch."""

import sys

from harness.signals import guard_imports


def start(name: str, about: str) -> None:
    """Handle signals, and exit at once if the command line asks for help or is wrong.

    Args:
        name: of the config, see `launch.launch`.
        about: first part of the help.
    """
    guard_imports()  # first: a signal may come during the other imports

    from experiment.launching.launch import check_words

    check_words(name, sys.argv[1:], about)
