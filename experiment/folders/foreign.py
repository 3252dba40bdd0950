"""Run folders outside of runs/, which others may have made: paths in them are refused, results go elsewhere."""

from collections.abc import Collection
from dataclasses import fields
from pathlib import Path
from typing import Any

from experiment.folders.zoo import SHIPPED

RUNS = Path("runs")  # where trainings write their runs, in the working folder
RESULTS = RUNS / "evaluations"
# Keys that name files to read or to write.
PATH_KEYS = {"folder", "path", "run", "policy", "background_folder", "init", "space", "demonstration"}


def is_own(folder: Path) -> bool:
    """Whether the folder lies under `runs/` of the working folder."""
    return folder.resolve().is_relative_to(RUNS.resolve())


def results_folder(folder: Path) -> Path:
    """The folder for results of the weights in `folder`: itself if it is one of ours, else in `runs/evaluations`."""
    if is_own(folder):
        return folder
    whole = folder.resolve()
    near = next((root for root in (Path.cwd(), SHIPPED) if whole.is_relative_to(root)), whole.anchor)
    return RESULTS / whole.relative_to(near)


def check_paths(folder: Path, part: Any, advice: str, allowed: Collection[str] = ()) -> None:
    """Raise ValueError if `part` of the config in `folder` names paths and the folder is not under `runs/`.

    Args:
        advice: what to do instead.
        allowed: keys whose paths are not read.
    """
    if is_own(folder):
        return
    for key in fields(part):
        value = getattr(part, key.name)
        if key.name in PATH_KEYS - set(allowed) and value != key.default:
            raise ValueError(
                f"{folder}/config.yaml names {key.name}={value}: used only if the run is under {RUNS}/; {advice}"
            )
