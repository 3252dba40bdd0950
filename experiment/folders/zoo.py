"""Find the trained agents that are shipped with Sidequest."""

from pathlib import Path

import configs

SHIPPED = Path(configs.__path__[0]).parent  # the folder with zoo/, in a checkout and in an installed package


def locate(path: str) -> Path:
    """The path itself; or, if it does not exist and begins with `zoo/`, the shipped folder."""
    given = Path(path)
    if given.parts[:1] == ("zoo",) and not given.exists():
        return SHIPPED / given
    return given
