"""Objectives by the name that a config uses."""

from aux_tasks.base import AuxTask
from aux_tasks.image.rotation import Rotation
from aux_tasks.video.permutation import Permutation

TASKS: dict[str, type[AuxTask]] = {
    "rotation": Rotation,
    "permutation": Permutation,
}
