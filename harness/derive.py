"""What follows from a seed and a name, the same on every machine and in every release. Nothing here needs torch."""

import hashlib
import json
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray


def derive(seed: int, *names: str | int) -> int:
    """A seed in [0, 2**63) for the stream `names`."""
    digest = hashlib.sha256(json.dumps([seed, *names]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def held_out(names: Iterable[str], share: float, seed: int) -> NDArray[np.bool_]:
    """(N,) which of two or more different names are kept for testing, each with probability `share`.

    The seed and a name alone decide, so that names that come or go move no other. Only where one part would be empty,
    as it may be of few names, it takes the name that comes nearest.
    """
    chance = np.array([derive(seed, "split", name) for name in names]) / 2**63
    bound: float = np.clip(share, np.nextafter(chance.min(), 1), chance.max())
    return chance < bound
