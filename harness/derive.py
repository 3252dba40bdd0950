"""Seeds, splits and short names that follow from names, the same on every machine and in every release."""

import hashlib
import json
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

LONGEST = 100  # characters of a name from `shorten`


def derive(seed: int, *names: str | int) -> int:
    """The seed in [0, 2**63) of the random stream `names`."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def held_out(names: Iterable[str], share: float, seed: int) -> NDArray[np.bool_]:
    """(N,) which of two or more different names are held out for testing, each with probability `share`.

    Only the seed and the name decide, so adding or removing names moves no other. If one part would be empty, it takes
    the name that comes nearest.
    """
    chance = np.array([derive(seed, "split", name) for name in names]) / 2**63
    bound: float = np.clip(share, np.nextafter(chance.min(), 1), chance.max())
    return chance < bound


def shorten(name: str) -> str:
    """The name; or, if it has more than `LONGEST` characters, its beginning and a hash of the whole."""
    if len(name) <= LONGEST:
        return name
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
