"""Options of the tasks on control and video that are out of range are refused by name; of all, what makes no sense."""

import math
from typing import get_args

import pytest
from aux_help import make_setting, make_task
from contract_help import CASES, small_encoder

from aux_tasks import TASKS
from aux_tasks.config import options_of

SETTING = {"frame_stack", "num_actions"}  # what a row says of the run
REFUSALS = [
    ("deepmdp", {"model": "gausian", "distance": "mmd"}, "model must be one of .* did you mean 'gaussian'"),
    ("deepmdp", {"distance": "wasserstien"}, "distance must be one of .* did you mean 'wasserstein'"),
    ("deepmdp", {"space": "map"}, "space must be one of features, maps, got 'map': did you mean 'maps'"),
    ("deepmdp", {"model": "gaussian"}, "would drive the std of model=gaussian to zero: use distance=likelihood"),
    ("deepmdp", {"space": "maps", "model": "gaussian", "distance": "mmd"}, "space=maps needs discrete actions and mod"),
    ("deepmdp", {"space": "maps", "num_actions": None}, "space=maps needs discrete actions"),
    (
        "dbc",
        {"form": "papers"},
        "form must be one of paper, released, normed, robust, mico, rap, got 'papers': did you mean",
    ),
    ("dbc", {"model": "ensemble", "members": 0}, "members must be at least 1, got 0"),
    ("predictive", {"horizon_gamma": 1}, r"horizon_gamma must be in \[0, 1\), got 1"),
    ("reconstruction", {"bits": 0}, "bits must be 1 to 8, got 0"),
    ("reconstruction", {"bits": 9}, "bits must be 1 to 8, got 9"),
    ("contrastive_ucb", {"latent_dim": 0}, "latent_dim must be at least 1, got 0"),
    ("contrastive_ucb", {"ridge": 0.0}, r"ridge must be above 0, got 0\.0"),
    ("spr", {"horizon": 0}, "horizon must be at least 1, got 0"),
    ("permutation", {"frame_stack": 1}, "permutation needs frame_stack=4, got 1; any from 3 on would do"),
    ("permutation", {"frame_stack": 2}, "permutation needs frame_stack=4, got 2; any from 3 on would do"),
    ("permutation", {"frame_stack": 3, "classes": 4}, "classes must be 2 to 3 for stacks of 3 frames, got 4"),
    ("permutation", {"classes": 13}, "classes must be 2 to 12 for stacks of 4 frames, got 13"),
    ("permutation", {"classes": 1}, "classes must be 2 to 12 for stacks of 4 frames, got 1"),
    ("permutation", {"frame_stack": 5, "classes": 0}, "classes must be 2 to 60 for stacks of 5 frames, got 0"),
    ("temporal_cpc", {"horizon": 0}, "horizon must be at least 1"),
    ("temporal_cpc", {"horizon": 4, "frames": 4}, "horizon must be at least 1"),
    ("temporal_cpc", {"stride": 0}, "stride must be at least 1"),
    ("st_dim", {"stride": 0}, "stride must be at least 1, got 0"),
    ("tov_vicreg", {"stride": 3}, "stride must be at least the frame stack of 4, got 3"),
    ("shuffle_learn", {"gap": 0}, "gap must be at least 1, got 0"),
    ("shuffle_learn", {"gap": 3, "clip_length": 9}, "five observations 3 apart need clip_length=13, got 9"),
    ("shuffle_learn", {"positives": 1.0}, r"positives must be in \(0, 1\), got 1\.0"),
    ("odd_one_out", {"sub_clips": 2}, "sub_clips must be at least 3, got 2"),
    ("odd_one_out", {"frames": 2}, "frames must be at least 3, got 2"),
    ("odd_one_out", {"frames": 21, "frame_stack": 1}, "a sub-clip must have at most 20 frames, got 21"),
    ("odd_one_out", {"stride": 0}, "stride must be at least 1, got 0"),
    (
        "odd_one_out",
        {"stride": 3, "clip_length": 9, "sub_clips": 3},
        "3 sub-clips of 4 frames need clip_length=12",
    ),
    ("arrow_of_time", {"groups": 1}, "groups must be at least 2, got 1"),
    ("arrow_of_time", {"stride": 0}, "stride must be at least 1, got 0"),
    ("arrow_of_time", {"border": -1}, "border must be at least 0, got -1"),
    ("arrow_of_time", {"border": 12}, r"border=12 leaves nothing of observations of shape \(12, 24, 24\)"),
    ("soda", {"frame_stack": 2}, "mixes pictures in colour into observations: env.grayscale=false"),
    ("video_colorization", {"frame_stack": 2}, "needs colour frames: 6 channels with frame_stack=2, got 12"),
    *[("video_colorization", {option: 0}, option) for option in ("references", "embedding_dim", "stride")],
    ("video_colorization", {"colours": 1}, "colours"),
    *[("tracking", {option: 0}, option) for option in ("stride", "search", "negatives")],
    *[("tracking", {"patch_size": side}, f"patch_size must be 2 to 24, got {side}") for side in (1, 25)],
    *[("motion_statistics", {option: 0}, option) for option in ("stride", "hidden", "cells")],
    ("motion_statistics", {"cells": 7}, "cells must be 2 to 6, of 4 pixels at least, got 7"),
    ("motion_statistics", {"frames": 1}, "frames"),
    ("tracking", {"frames": 1}, "frames"),
    ("tracking", {"margin": 0.0}, "margin"),
    ("tracking", {"shift": -1}, "shift"),
    ("tracking", {"hard_share": 1.5}, "hard_share"),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSALS)
def test_what_is_out_of_range_is_refused(name, options, message):
    encoder, run = small_encoder(), {option: options[option] for option in SETTING & options.keys()}
    options = CASES[name] | {option: value for option, value in options.items() if option not in SETTING}
    with pytest.raises(ValueError, match=message):
        make_task(name, encoder, make_setting(encoder, **run), **options)


# Options of which 0 means something, of which a negative number does, and that are shares or momenta.
MAY_BE_0 = {"hidden of rotation", "hidden of permutation", "permutation_seed of jigsaw", "colour_jitter of jigsaw"}
MAY_BE_0 |= {"border of arrow_of_time", "shift of tracking", "hard_after of tracking", "pad of curl", "pad of spr"}
MAY_BE_NEGATIVE = {"permutation_seed of jigsaw", "skew of rig"}
AT_MOST_1 = {"momentum", "horizon_gamma", "expectile", "gray", "coarse", "foreground", "hard_share", "mask_ratio"}
AT_MOST_1 |= {"patch_ratio"}


@pytest.mark.parametrize("name", TASKS)
def test_no_option_takes_a_number_that_makes_no_sense(name):
    encoder = small_encoder(name)
    for option, (_, hint) in options_of(TASKS[name]).items():
        kinds, full = get_args(hint) or (hint,), f"{option} of {name}"
        wrong = [] if full in MAY_BE_NEGATIVE else [-1]
        if float in kinds:
            wrong += [math.nan] + [1.5] * (option in AT_MOST_1)
        elif int in kinds:
            wrong += [] if full in MAY_BE_0 else [0]
        else:
            continue
        for value in wrong:
            with pytest.raises(ValueError, match=rf"\b{option}\b|the clip has"):
                make_task(name, encoder, make_setting(encoder), **CASES[name] | {option: value})
