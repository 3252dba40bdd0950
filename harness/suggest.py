"""Suggestions for misspelt names."""

from collections.abc import Iterable
from difflib import SequenceMatcher

CUTOFF = 0.65  # similarity from 0 to 1 below which a name is no suggestion
LIST_WIDTH = 320  # characters of a list of names at most


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` if a known name is close, or else `there are a, b, c`, of bounded length."""
    names = list(known)
    near = closest(name, names)
    return f"did you mean {near!r}?" if near else _listed(names)


def closest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most similar to `name`; None if none is similar.

    Of dotted keys, the last parts are compared: `lr` and `agent.rate` find `agent.learning_rate`. Among equals, the
    similarity of whole names decides, then the order.
    """
    scores = {other: (_likeness(name, other), _ratio(name, other)) for other in known}
    best = max(scores, key=lambda other: scores[other], default=None)
    return best if best is not None and scores[best][0] >= CUTOFF else None


def _likeness(name: str, other: str) -> float:
    """Similarity of the last parts of two keys, from 0 to 1."""
    given, known = (key.lower().rpartition(".")[2] for key in (name, other))
    words = known.split("_")
    same = [
        (1.0, given == known),
        (0.85, given in words and len(given) > 1),
        (0.8, given == "".join(word[:1] for word in words) and len(words) > 1),  # an abbreviation
        (0.75, given in known and len(given) > 2),
    ]
    return max([_ratio(given, known), *(score for score, holds in same if holds)])


def _ratio(name: str, other: str) -> float:
    return SequenceMatcher(None, name.lower(), other.lower()).ratio()


def _listed(names: list[str]) -> str:
    if not names:
        return "there are none"
    shown = names
    while len(", ".join(shown)) > LIST_WIDTH and len(shown) > 1:
        shown = shown[:-1]
    more = len(names) - len(shown)
    return f"there are {', '.join(shown)}" + (f" and {more} more" if more else "")
