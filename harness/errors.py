"""Errors in one line."""

from traceback import extract_tb


def describe(error: BaseException) -> str:
    """`KeyError: 'x' (.../agents/dqn.py:12)`: type, first line and place of an unforeseen error."""
    frames = extract_tb(error.__traceback__)[1:]  # without the one that caught it
    frames = [frame for frame in frames if "importlib" not in frame.filename]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}{where}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]
