"""Folders of grasps: what lay there before, what lies there after, and what was taken."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from datasets.episodes import Episodes
from datasets.readers import room, stills
from harness.media import IMAGES, find_files, read_image

MEMBERS = ("before", "after", "outcome")


def read_triplets(folder: Path, size: int) -> Episodes:
    """Every grasp below `folder`, by path, as an episode of one frame with three views: before, after and outcome.

    `folder/<grasp>/before.png`, `after.png` and `outcome.png` belong together; `.jpg` and the like will do. In
    `folder/<object>/<grasp>/` they have the label `object`. Pictures are cut to their middle square and resized to
    (3, size, size). A split goes by the paths of the grasps.

    Raises:
        ValueError: there is none, some lie deeper than others, or a member is missing or cannot be read.
        MemoryError: they do not fit.
    """
    grasps: dict[Path, dict[str, Path]] = {}
    for path in find_files(folder, IMAGES):
        grasps.setdefault(path.parent, {})[path.stem] = path
    names = [grasp.relative_to(folder).parts for grasp in grasps]
    if len(set(map(len, names))) > 1 or len(names[0]) not in (1, 2):
        raise ValueError(f"{folder}: its pictures must all lie in folder/grasp/ or in folder/object/grasp/")
    for grasp, members in grasps.items():
        if missing := [name for name in MEMBERS if name not in members]:
            raise ValueError(f"{grasp} has no {missing[0]}.png: a grasp is before.png, after.png and outcome.png")
    views = room(3 * len(grasps), size, "pictures", "lower source.size").reshape(-1, 3, 3, size, size)
    for grasp_views, members in zip(views, grasps.values(), strict=True):
        for picture, name in zip(grasp_views, MEMBERS, strict=True):
            picture[:] = read_image(members[name], size).transpose(2, 0, 1)
    labels = {"object": np.array([parts[0] for parts in names])} if len(names[0]) == 2 else {}
    return replace(stills(views[:, 0], labels), names=np.array(["/".join(parts) for parts in names]), views=views)
