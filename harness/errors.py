"""An error in one line."""

from traceback import extract_tb


def describe(error: BaseException) -> str:
    """`KeyError: 'x' (.../agents/dqn.py:12)`: kind, first line and place of an error that nobody foresaw."""
    frames = extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}{where}"
