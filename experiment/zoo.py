"""The trained agents that come with Sidequest."""

from pathlib import Path

import configs

SHIPPED = Path(configs.__path__[0]).parent  # has zoo/, in a checkout and in an installed package


def locate(path: str) -> Path:
    """A path as it is given, or, where there is none and it begins with `zoo/`, the one that comes with Sidequest."""
    given = Path(path)
    if given.parts[:1] == ("zoo",) and not given.exists():
        return SHIPPED / given
    return given
