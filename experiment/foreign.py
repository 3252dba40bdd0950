"""Folders that somebody else may have made: their config is read as data, and nothing is written into them."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from experiment.zoo import SHIPPED

OWN = Path("runs")  # of the working folder: where training leaves its runs
RESULTS = OWN / "evaluations"
# Keys that name files to read or to write.
PATHS = {"folder", "path", "run", "policy", "background_folder", "init", "space"}


def is_own(folder: Path) -> bool:
    """Whether the folder lies under `runs/` of the working folder."""
    return folder.resolve().is_relative_to(OWN.resolve())


def results_folder(folder: Path) -> Path:
    """Where the results of evaluating the weights in `folder` go: there, or to `runs/evaluations/<its path>`."""
    if is_own(folder):
        return folder
    whole = folder.resolve()
    near = next((place for place in (Path.cwd(), SHIPPED) if whole.is_relative_to(place)), whole.anchor)
    return RESULTS / whole.relative_to(near)


def check_paths(folder: Path, part: Any, advice: str) -> None:
    """Raise ValueError if the config in `folder`, of which `part` is a part, names paths and is not the user's own."""
    if is_own(folder):
        return
    for key in fields(part):
        value = getattr(part, key.name)
        if key.name in PATHS and value != key.default:
            raise ValueError(
                f"{folder}/config.yaml names {key.name}={value}: used only if the run is under {OWN}/; {advice}"
            )
