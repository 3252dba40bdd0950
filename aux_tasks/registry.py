"""Objectives by the name that a config uses."""

from aux_tasks.base import AuxTask
from aux_tasks.control.curl import CURL
from aux_tasks.control.dbc import DBC
from aux_tasks.control.deepmdp import DeepMDP
from aux_tasks.control.inverse_dynamics import InverseDynamics
from aux_tasks.control.reconstruction import Reconstruction
from aux_tasks.control.spr import SPR
from aux_tasks.image.rotation import Rotation
from aux_tasks.video.permutation import Permutation

TASKS: dict[str, type[AuxTask]] = {
    "rotation": Rotation,
    "permutation": Permutation,
    "deepmdp": DeepMDP,
    "dbc": DBC,
    "curl": CURL,
    "reconstruction": Reconstruction,
    "spr": SPR,
    "inverse_dynamics": InverseDynamics,
}
