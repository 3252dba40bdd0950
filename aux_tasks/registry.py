"""Auxiliary tasks by the name that a config uses."""

from aux_tasks.base import AuxTask
from aux_tasks.control.curl import CURL
from aux_tasks.control.dbc import DBC
from aux_tasks.control.deepmdp import DeepMDP
from aux_tasks.control.inverse_dynamics import InverseDynamics
from aux_tasks.control.predictive import Predictive
from aux_tasks.control.reconstruction import Reconstruction
from aux_tasks.control.spr import SPR
from aux_tasks.image.barlow_twins import BarlowTwins
from aux_tasks.image.bigan import BiGAN
from aux_tasks.image.byol import BYOL
from aux_tasks.image.colorization import Colorization
from aux_tasks.image.context_encoder import ContextEncoder
from aux_tasks.image.counting import Counting
from aux_tasks.image.cpc_image import CPCImage
from aux_tasks.image.denoising import Denoising
from aux_tasks.image.exemplar import Exemplar
from aux_tasks.image.jigsaw import Jigsaw
from aux_tasks.image.moco import MoCo
from aux_tasks.image.relative_position import RelativePosition
from aux_tasks.image.rotation import Rotation
from aux_tasks.image.simclr import SimCLR
from aux_tasks.image.split_brain import SplitBrain
from aux_tasks.image.vicreg import VICReg
from aux_tasks.video.arrow_of_time import ArrowOfTime
from aux_tasks.video.odd_one_out import OddOneOut
from aux_tasks.video.permutation import Permutation
from aux_tasks.video.shuffle_learn import ShuffleLearn
from aux_tasks.video.st_dim import STDIM
from aux_tasks.video.temporal_cpc import TemporalCPC
from aux_tasks.video.tov_vicreg import TOVVICReg
from aux_tasks.video.tracking import Tracking
from aux_tasks.video.video_colorization import VideoColorization

TASKS: dict[str, type[AuxTask]] = {
    "rotation": Rotation,
    "permutation": Permutation,
    "deepmdp": DeepMDP,
    "dbc": DBC,
    "curl": CURL,
    "reconstruction": Reconstruction,
    "spr": SPR,
    "predictive": Predictive,
    "inverse_dynamics": InverseDynamics,
    "temporal_cpc": TemporalCPC,
    "st_dim": STDIM,
    "denoising": Denoising,
    "relative_position": RelativePosition,
    "colorization": Colorization,
    "exemplar": Exemplar,
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "barlow_twins": BarlowTwins,
    "vicreg": VICReg,
    "tov_vicreg": TOVVICReg,
    "split_brain": SplitBrain,
    "context_encoder": ContextEncoder,
    "bigan": BiGAN,
    "shuffle_learn": ShuffleLearn,
    "odd_one_out": OddOneOut,
    "arrow_of_time": ArrowOfTime,
    "jigsaw": Jigsaw,
    "counting": Counting,
    "cpc_image": CPCImage,
    "video_colorization": VideoColorization,
    "tracking": Tracking,
}
