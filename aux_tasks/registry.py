"""Auxiliary tasks by the name that a config uses."""

from typing import TYPE_CHECKING

from harness.lazy import Registry

if TYPE_CHECKING:
    from aux_tasks.base import AuxTask

TASKS: "Registry[type[AuxTask]]" = Registry(
    {
        "rotation": "aux_tasks.image.rotation:Rotation",
        "permutation": "aux_tasks.video.permutation:Permutation",
        "deepmdp": "aux_tasks.control.deepmdp:DeepMDP",
        "dbc": "aux_tasks.control.dbc:DBC",
        "curl": "aux_tasks.control.curl:CURL",
        "reconstruction": "aux_tasks.control.reconstruction:Reconstruction",
        "spr": "aux_tasks.control.spr:SPR",
        "predictive": "aux_tasks.control.predictive:Predictive",
        "self_prediction": "aux_tasks.control.self_prediction:SelfPrediction",
        "contrastive_ucb": "aux_tasks.control.contrastive_ucb:ContrastiveUCB",
        "soda": "aux_tasks.control.soda:SODA",
        "inverse_dynamics": "aux_tasks.control.inverse_dynamics:InverseDynamics",
        "temporal_cpc": "aux_tasks.video.temporal_cpc:TemporalCPC",
        "st_dim": "aux_tasks.video.st_dim:STDIM",
        "denoising": "aux_tasks.image.denoising:Denoising",
        "relative_position": "aux_tasks.image.relative_position:RelativePosition",
        "colorization": "aux_tasks.image.colorization:Colorization",
        "exemplar": "aux_tasks.image.exemplar:Exemplar",
        "simclr": "aux_tasks.image.simclr:SimCLR",
        "moco": "aux_tasks.image.moco:MoCo",
        "byol": "aux_tasks.image.byol:BYOL",
        "barlow_twins": "aux_tasks.image.barlow_twins:BarlowTwins",
        "vicreg": "aux_tasks.image.vicreg:VICReg",
        "tov_vicreg": "aux_tasks.video.tov_vicreg:TOVVICReg",
        "split_brain": "aux_tasks.image.split_brain:SplitBrain",
        "masked_autoencoder": "aux_tasks.image.masked_autoencoder:MaskedAutoencoder",
        "context_encoder": "aux_tasks.image.context_encoder:ContextEncoder",
        "bigan": "aux_tasks.image.bigan:BiGAN",
        "shuffle_learn": "aux_tasks.video.shuffle_learn:ShuffleLearn",
        "odd_one_out": "aux_tasks.video.odd_one_out:OddOneOut",
        "arrow_of_time": "aux_tasks.video.arrow_of_time:ArrowOfTime",
        "jigsaw": "aux_tasks.image.jigsaw:Jigsaw",
        "counting": "aux_tasks.image.counting:Counting",
        "cpc_image": "aux_tasks.image.cpc_image:CPCImage",
        "video_colorization": "aux_tasks.video.video_colorization:VideoColorization",
        "tracking": "aux_tasks.video.tracking:Tracking",
        "motion_statistics": "aux_tasks.video.motion_statistics:MotionStatistics",
        "rig": "aux_tasks.goals.rig:RIG",
        "cc_rig": "aux_tasks.goals.cc_rig:ContextConditionedRIG",
        "temporal_distance": "aux_tasks.goals.temporal_distance:TemporalDistance",
        "contrastive_goal": "aux_tasks.goals.contrastive_goal:ContrastiveGoal",
        "tcn": "aux_tasks.goals.tcn:TCN",
        "single_view_tcn": "aux_tasks.goals.tcn:SingleViewTCN",
        "mftcn": "aux_tasks.goals.mftcn:MultiFrameTCN",
        "grasp2vec": "aux_tasks.goals.grasp2vec:Grasp2Vec",
    }
)
